"""Who can do what after the migration, and couldn't before, and the reverse: as comments, and to confirm.

Postgres evaluates the policies of both sides on rows that are made up.  It reads no rows, and writes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.exc import DBAPIError

from sqla_rls.alembic.autogenerate.normalize import Normalized
from sqla_rls.alembic.autogenerate.read import Context, Read
from sqla_rls.alembic.autogenerate.render import Call, confirmed
from sqla_rls.diff.policies import Changes
from sqla_rls.exc import AnalysisError, DeclarationError
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import TableKey

if TYPE_CHECKING:
    from sqla_rls.analyze.verdict import Change, Comparison, Counterexample

log = autogenerate_log(__name__)

#: The option of ``context.configure()``.
OPTION: Final = "row_security_openings"
_CHOICES: Final = ("confirm", "warn", "ignore")
#: The most worlds for each table, and the most rows of each table in a world.
_WORLDS, _ROWS = 60, 2
#: It follows the verdicts that aren't decided.
TO_DECIDE: Final = 'To decide, run before the upgrade: sqla-rls diff "$DATABASE_URL" rev:head'


class Verdicts(NamedTuple):
    """What the revision says of access."""

    #: The comments of the upgrade, and those of the downgrade.
    upgrade: tuple[str, ...] = ()
    downgrade: tuple[str, ...] = ()
    to_confirm: tuple[Call, ...] = ()


def verdicts(context: Context, read: Read, normalized: Normalized, changes: Changes) -> Verdicts:
    """Log who can do what after the migration and couldn't before, and return it for the revision.

    Nothing is compared unless policies or flags change, or privileges, roles or functions on which access to
    tables with row security depends.

    Raises:
        DeclarationError: the option has another value than "confirm", "warn" and "ignore".
    """
    choice = context.autogen_context.opts.get(OPTION, "confirm")
    if choice not in _CHOICES:
        raise DeclarationError(
            f"autogenerate failed: {OPTION}={choice!r} in env.py is no choice. Give one of {_CHOICES}"
        )
    # Without changes, the analysis isn't imported.
    if choice == "ignore" or (changes.is_empty and not read.function_changes):
        return Verdicts()
    try:
        from sqla_rls.analyze.in_place import Migration

        migration = Migration(
            live=read.live,
            changes=changes,
            functions=read.function_changes,
            dropped=context.tables.dropped,
            altered={table for table, _ in context.tables.retyped_columns | context.tables.dropped_columns},
        )
        if not migration.may_open:
            return Verdicts()
        return _found(context, migration, read, choice)
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        reason = str(error.orig if isinstance(error, DBAPIError) else error).partition("\n")[0]
        lines = [f"Not decided: {reason}"]
        # The reason of another error says what to do.
        lines += [TO_DECIDE] if isinstance(error, DBAPIError) else []
        for line in lines:
            log.info("%s", line)
        return Verdicts(upgrade=tuple(lines))


def _found(context: Context, migration: Any, read: Read, choice: str) -> Verdicts:
    from sqla_rls.analyze.in_place import Sides, compare_in_place
    from sqla_rls.analyze.verdict import Budget
    from sqla_rls.analyze.why.trust import Untrusted

    sides = Sides.read(context.connection, migration)
    found = compare_in_place(
        context.connection,
        sides.before,
        sides.after,
        names=sides.names,
        roles=sides.roles,
        budget=Budget(worlds=_WORLDS, rows=_ROWS),
        # After the sides: a table that comes later is on none of them.
        untrusted=Untrusted.read(context.connection),
    )
    protected = {
        name: TableKey.of(relation.schema, relation.relname, context.default_schema)
        for name, relation in sides.before.schema.relations.items()
        if relation.row_security
    }
    lines = _lines(found)
    for line in lines:
        log.info("%s", line)
    opens = _by_table(one for one in found.changes if one.verdict != "closes" and one.object in protected)
    calls: list[Call] = []
    for name, changed in opens.items():
        exposure = "; ".join(_sentences(changed, "opens"))
        if choice == "warn":
            log.warning("this migration opens table %s: %s", name, exposure)
            continue
        calls.append(confirmed(protected[name], exposure))
    return Verdicts(tuple(lines), tuple(_lines_of_downgrade(found)), tuple(calls))


def _lines(found: Comparison) -> list[str]:
    lines = []
    for label, direction in (("Opens", "opens"), ("Closes", "closes")):
        for changed in _by_table(found.changes).values():
            lines += [f"{label}: {one}" for one in _sentences(changed, direction)]
    lines += [f"Same rows as before: {one}" for one in _sames(found)]
    unknown = [f"Not decided: {one}" for one in _unknowns(found)]
    return [*lines, *unknown, TO_DECIDE] if unknown else lines


def _lines_of_downgrade(found: Comparison) -> Iterator[str]:
    """Yield what the way back opens: the earlier state, which was reviewed when it was made."""
    for changed in _by_table(found.changes).values():
        for sentence in _sentences(changed, "closes", verb="can again"):
            yield f"Opens: {sentence}"


def _by_table(changes: Iterable[Change]) -> Mapping[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.object, []).append(change)
    return found


def _sentences(changes: Sequence[Change], direction: str, verb: str | None = None) -> Iterator[str]:
    """Yield a sentence for the roles that can do the same, with an example."""
    groups: dict[str, dict[str, Change]] = {}
    for change in changes:
        if change.verdict in (direction, "both"):
            groups.setdefault(change.role, {})[change.command] = change
    together: dict[tuple[str, ...], list[str]] = {}
    for role, commands in groups.items():
        together.setdefault(tuple(_sorted(commands)), []).append(role)
    for names, roles in together.items():
        change = groups[roles[0]][names[0]]
        verb = verb or ("can" if direction == "opens" else "can no longer")
        sentence = f"{_listed(roles)} {verb} {_listed(names)} {change.object}"
        example = _example(change, direction)
        yield sentence if verb == "can again" else f"{sentence}, for example {example.text}"


def _example(change: Change, direction: str) -> Counterexample:
    if direction == "closes" and change.closing is not None:
        return change.closing
    return change.counterexample


def _sames(found: Comparison) -> Iterator[str]:
    changed = {one.object for one in found.changes} | {one.object for one in found.unknown}
    groups: dict[str, list[Any]] = {}
    for one in found.same:
        if one.worlds:
            groups.setdefault(one.object, []).append(one)
    for name, ones in groups.items():
        commands = "" if name not in changed else f" for {_listed(_sorted({one.command for one in ones}))}"
        worlds = max(one.worlds for one in ones)
        number = "1 world" if worlds == 1 else f"{worlds} worlds"
        proved = ", proved" if all(one.proved for one in ones) else ""
        yield f"{name}{commands}, in {number} with up to {found.scope.rows_per_table} rows per table{proved}"


def _unknowns(found: Comparison) -> Iterator[str]:
    groups: dict[str, tuple[set[str], set[str]]] = {}
    for one in found.unknown:
        names, roles = groups.setdefault(one.reason, (set(), set()))
        names.add(one.object)
        roles.add(one.role)
    for reason, (names, roles) in groups.items():
        yield f"{_listed(sorted(names))} for {_listed(sorted(roles))}: {reason}"


_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def _sorted(commands: Iterable[str]) -> list[str]:
    return sorted(commands, key=_ORDER.index)


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
