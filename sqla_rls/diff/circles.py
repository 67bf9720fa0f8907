"""Policies that read each other's tables in a circle, for which Postgres refuses queries (42P17)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sqla_rls.snapshot import PUBLIC, Policy, PolicyKey, Snapshot, TableKey, named_by


def circles(snapshot: Snapshot) -> Iterator[list[Policy]]:
    """Yield each circle once: each policy reads the table of the next, and the last one that of the first.

    For one role, Postgres follows the tables of a query, the subqueries of their policies, and so on.  It
    refuses a table for the second time, unless no policy for reading it has a subquery.
    """
    if not any(snapshot.reads.values()):
        return
    found: set[frozenset[PolicyKey]] = set()
    for role in sorted(named_by(snapshot.policies.values())):
        roles = _with_groups(role, snapshot)
        policies = [
            policy
            for policy in snapshot.policies.values()
            if policy.roles & roles
            and (flags := snapshot.row_security.get(policy.table)) is not None
            and flags.enabled
        ]
        reading: dict[TableKey, list[Policy]] = {}
        for policy in policies:
            if policy.command in ("SELECT", "ALL"):
                reading.setdefault(policy.table, []).append(policy)
        for policy in policies:
            if not any(_has_subquery(one) for one in reading.get(policy.table, ())):
                continue
            if circle := _circle(policy, reading, snapshot.reads):
                keys = frozenset(one.key for one in circle)
                # A circle that begins with a write contains a circle without the write.
                if not any(other <= keys for other in found):
                    found.add(keys)
                    yield circle


def explanation(circle: Collection[Policy]) -> str:
    """A remark that names the policies."""
    first, *_ = circle
    steps = " → ".join(f"{policy.table.name} (policy {policy.name})" for policy in circle)
    return (
        f"queries will fail with 42P17, infinite recursion: their policies read tables in a circle, {steps} "
        f"→ {first.table.name}. Call a function in one of the policies, such as memberships() declares"
    )


def _with_groups(role: str, snapshot: Snapshot) -> set[str]:
    """Return *role* and the roles whose policies hold for it, too."""
    found = [role, PUBLIC]
    for one in found:  # the list grows
        if declared := snapshot.roles.get(one):
            found += [name for group in declared.member_of or () if (name := str(group)) not in found]
    return set(found)


def _circle(
    start: Policy,
    reading: Mapping[TableKey, Collection[Policy]],
    reads: Mapping[tuple[TableKey, str], Collection[TableKey]],
) -> list[Policy] | None:
    """Return the shortest circle from *start* back to its table."""

    def read_by(policy: Policy, *expressions: str | None) -> Iterator[TableKey]:
        for expression in expressions:
            yield from sorted(reads.get((policy.table, expression or ""), ()), key=str)

    visited: set[TableKey] = set()
    ways = [([start], table) for table in read_by(start, start.using, start.with_check)]
    for way, table in ways:  # the list grows
        if table == start.table:
            return way
        if table not in visited:
            visited.add(table)
            # Only the policies for reading count from the second table on.
            ways += [
                ([*way, one], more) for one in reading.get(table, ()) for more in read_by(one, one.using)
            ]
    return None


def _has_subquery(policy: Policy) -> bool:
    return "select" in (policy.using or "").lower()
