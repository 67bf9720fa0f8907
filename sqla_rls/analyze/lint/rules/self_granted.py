"""Callers write the row that decides about their own access.

A policy reads a table of memberships, or a column such as `is_admin`. If the caller may insert the
membership, or update the column, then row security holds only until they do. `INSERT … WITH CHECK (user_id
= auth.user_id())` on a table of members lets each caller join each organization. Let a function, or an
owner of the organization, add members, and grant UPDATE on the other columns only.

Small worlds decide: the finding comes with the row that the caller writes, and the row that it opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.pinned import pinned_columns
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.why.explanation import WRITES, Command
from sqla_rls.analyze.worlds.objects import Column
from sqla_rls.analyze.worlds.values import natural
from sqla_rls.analyze.worlds.world import Row


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE POLICY add ON members FOR INSERT TO authenticated
          WITH CHECK (user_id = (SELECT auth.user_id()));
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (org_id = ANY (ARRAY(
          SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
        GRANT SELECT, INSERT ON members TO authenticated;
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (org_id = ANY (ARRAY(
          SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
        GRANT SELECT ON members, docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    known = {(one.table.name, one.role): one for one in accesses(database)}
    reported = set()
    for reach in Reaches.of(database).all():
        for name in sorted(database.schema.reads(reach.relation.name) - {reach.relation.name}):
            access = known.get((name, reach.role))
            # One protected table is enough to show it.
            if access is None or (name, reach.role) in reported:
                continue
            target = known.get((reach.relation.name, reach.role))
            found = _opened(reach, access, target)
            if found is None:
                continue
            part, command, case, row, columns = found
            reported.add((name, reach.role))
            verb = "inserts" if command == "INSERT" else "changes"
            yield Finding(
                object=name,
                kind="table",
                role=reach.role,
                command=command,
                column=columns[0] if command == "UPDATE" else None,
                text=(
                    f"Callers of role {reach.role} write the row of {name} that opens {reach.relation.name} "
                    "to them."
                ),
                evidence=[
                    Evidence(
                        kind="counterexample",
                        text=(
                            f"{case.actor.text} {verb} {reach.words(row)}, and then {_VERBS[part]} "
                            f"{reach.words(case.row)}"
                        ),
                        data={"role": reach.role, "claims": case.actor.claims, "new_row": dict(row.values)},
                    )
                ],
                remedy=Remedy(
                    sql=(
                        f"REVOKE INSERT ON {name} FROM {database.quoted_role(reach.role)};"
                        if command == "INSERT"
                        else f"REVOKE UPDATE ON {name} FROM {database.quoted_role(reach.role)}; "
                        f"GRANT UPDATE (…) ON {name} TO {database.quoted_role(reach.role)};"
                    ),
                    python=f'Policy(…, "{command}", with_check=member_of(…, my_teams("owner")))',
                ),
            )


_VERBS: Final[Mapping[Part, str]] = {
    "select": "reads",
    "insert": "inserts",
    "update": "changes",
    "delete": "deletes",
}


def _opened(
    reach: Reach, access: Access, target: Access | None
) -> tuple[Part, Command, Case, Row, list[str]] | None:
    """Return what is opened, by which command, the case, the written row, and the columns that it changes."""
    pinned: dict[Command, frozenset[str]] = {
        command: pinned_columns(access, command) for command in _COMMANDS if access.works(command)
    }
    if not any(pinned.values()):
        return None
    writes = [one for one in WRITES if target is not None and target.works(one)]
    parts: list[Part] = [part for part in _VERBS if part == "select" or part.upper() in writes]
    for part in parts:
        for command, after, new, columns in _opening(reach, access, part, pinned):
            # Who may write rows of their own often needs a row first, such as a profile.
            if part == "select" or (columns and not _is_callers(reach, after)):
                return part, command, after, new, columns
    return None


def _opening(
    reach: Reach, access: Access, part: Part, pinned: Mapping[Command, frozenset[str]]
) -> Iterator[tuple[Command, Case, Row, list[str]]]:
    closed: dict[str, list[Case]] = {}
    opened: list[Case] = []
    for case in reach.cases(reach.identified):
        if reach.is_true(part, case):
            opened.append(case)
        else:
            closed.setdefault(_question(case), []).append(case)
    for after in opened:
        for before in closed.get(_question(after), ()):
            gone = [row for row in before.world.rows if row not in after.world.rows]
            new = [row for row in after.world.rows if row not in before.world.rows]
            if len(new) != 1 or new[0].relation != access.table.name:
                continue
            command: Command = "UPDATE" if gone else "INSERT"
            if not pinned.get(command) or not _is_own(new[0], pinned[command], after):
                continue
            if not gone:
                if _may_insert(access, new[0]):
                    yield command, after, new[0], []
                continue
            columns = _changed(access, gone, new[0], pinned[command])
            if columns:
                yield command, after, new[0], columns


def _is_callers(reach: Reach, case: Case) -> bool:
    """Return whether a column of the row in question, which policies compare with the caller, names them."""
    claims = set(map(str, _values(case.actor.claims or {})))
    own = [name for relation, name in reach.universe.callers if relation == reach.relation.name]
    return not claims.isdisjoint(str(case.row.values.get(name)) for name in own)


_COMMANDS: tuple[Command, ...] = ("INSERT", "UPDATE")


def _question(case: Case) -> str:
    return repr((case.place[0], sorted(case.row.values.items(), key=repr)))


def _is_own(row: Row, columns: frozenset[str], case: Case) -> bool:
    """Return whether the policies let the caller write *row*: its columns hold claims of the caller."""
    claims = set(map(str, _values(case.actor.claims or {})))
    return all(str(row.values.get(name)) in claims for name in columns)


def _values(claims: Mapping[str, Any]) -> Iterator[Any]:
    for value in claims.values():
        if isinstance(value, dict):
            yield from _values(value)
        else:
            yield value


def _may_insert(access: Access, row: Row) -> bool:
    """Return whether the caller may give *row* its values; the columns without a privilege get defaults."""
    return all(
        name in access.profile.inserts or _may_be_default(access.table.columns[name], value)
        for name, value in row.values.items()
    )


def _may_be_default(column: Column, value: Any) -> bool:
    """Return whether *value* may be that of the column's default: only constants are known not to be."""
    if column.default is None:
        return bool(column.identity) or value is None
    if column.default in ("true", "false"):
        return bool(value) is (column.default == "true")
    vocabulary = read_expression(column.default)
    if (
        len(vocabulary.loose) != 1
        or vocabulary.functions
        or vocabulary.loose[0].kind not in ("text", "number")
    ):
        return True
    return str(natural(vocabulary.loose[0])) == str(value)


def _changed(access: Access, gone: list[Row], new: Row, pinned: frozenset[str]) -> list[str]:
    """Return the columns that an UPDATE changes, if the caller may change them."""
    if len(gone) != 1 or gone[0].relation != new.relation:
        return []
    columns = {name for name, value in new.values.items() if gone[0].values.get(name) != value}
    return sorted(columns) if columns <= set(access.profile.updates) and not columns & pinned else []
