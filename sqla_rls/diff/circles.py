"""Policies that read each other's tables in a circle: Postgres refuses the queries, and only then (42P17)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sqla_rls.snapshot import PUBLIC, Policy, PolicyKey, Snapshot, TableKey


def circles(snapshot: Snapshot) -> Iterator[list[Policy]]:
    """Each circle once: policies of which each reads the table of the next, and the last that of the first.

    Postgres follows a query's tables, the subqueries of their policies, and so on, for one role.  It refuses
    a table that it is in already, unless the policies for reading it have no subquery.
    """
    found: set[frozenset[PolicyKey]] = set()
    for role in sorted({role for policy in snapshot.policies.values() for role in policy.roles}):
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
                # One that begins with a write goes on as one that is there without it.
                if not any(other <= keys for other in found):
                    found.add(keys)
                    yield circle


def explanation(circle: Collection[Policy]) -> str:
    """A remark that names the policies."""
    first, *_ = circle
    steps = " → ".join(f"{policy.table.name} (policy {policy.name})" for policy in circle)
    return (
        f"Policies read tables in a circle: {steps} → {first.table.name}. Postgres refuses every query that "
        "meets it (42P17, infinite recursion). Let one of them ask a function such as memberships() declares"
    )


def _with_groups(role: str, snapshot: Snapshot) -> set[str]:
    """*role* and the roles whose policies hold for it, too."""
    found = [role, PUBLIC]
    for one in found:  # which grows
        if declared := snapshot.roles.get(one):
            found += [name for group in declared.member_of or () if (name := str(group)) not in found]
    return set(found)


def _circle(
    start: Policy,
    reading: Mapping[TableKey, Collection[Policy]],
    reads: Mapping[tuple[TableKey, str], Collection[TableKey]],
) -> list[Policy] | None:
    """The shortest way from *start* back to its table."""

    def read_by(policy: Policy, *expressions: str | None) -> Iterator[TableKey]:
        for expression in expressions:
            yield from sorted(reads.get((policy.table, expression or ""), ()), key=str)

    visited: set[TableKey] = set()
    ways = [([start], table) for table in read_by(start, start.using, start.with_check)]
    for way, table in ways:  # which grows
        if table == start.table:
            return way
        if table not in visited:
            visited.add(table)
            # A policy that is followed reads rows, whatever else it is for.
            ways += [
                ([*way, one], more) for one in reading.get(table, ()) for more in read_by(one, one.using)
            ]
    return None


def _has_subquery(policy: Policy) -> bool:
    return "select" in (policy.using or "").lower()
