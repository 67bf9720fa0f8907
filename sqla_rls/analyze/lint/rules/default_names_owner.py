"""The default of a column names the caller, and callers may write another name.

A default such as `auth.user_id()` fills the owner in. It binds nobody: INSERT may give the column a value.
If the policy for INSERT doesn't compare the column with the caller, a caller writes rows in the name of
someone else.

Small worlds decide: the finding comes with a row of another owner that a caller inserts.

Administrators may write rows of others. The rule leaves out a caller who may also read, and change or delete,
that row, if other callers may not insert it. It leaves out a caller who may insert each row, if other callers
may insert their own only. A role of administrators is such a caller, too, beside `authenticated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqla_rls.analyze.lint.callers import expression_asks
from sqla_rls.analyze.lint.database import KNOWN_CALLERS, Database
from sqla_rls.analyze.lint.finding import Finding, Level, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import PUBLIC


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL DEFAULT auth.user_id());
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (true);
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL DEFAULT auth.user_id());
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    reaches = Reaches.of(database)
    for reach in reaches.all():
        name, role = reach.relation.name, reach.role
        inserts = database.profiles[name, role].inserts
        table = database.schema.relations[name]
        for column in table.columns.values():
            if column.name not in inserts or column.default is None or column.generated is not None:
                continue
            if not expression_asks(database.schema, column.default):
                continue
            is_policed = column.name in reach.universe.deciding.get(reach.universe.relation.name, ())
            found = (_of_another if is_policed else _of_any)(_Insertions(reaches, reach, column.name))
            if found is None:
                continue
            case, level = found
            yield Finding(
                object=name,
                kind="table",
                column=column.name,
                role=role,
                command="INSERT",
                level=level,
                text=f"The default of {name}.{column.name} names the caller, and INSERT may name another.",
                evidence=[reach.evidence(case, f"{{who}} inserts {{row}} with another {column.name}")],
                remedy=Remedy(
                    sql=f"ALTER POLICY … ON {name} WITH CHECK ({column.name} = {column.default});",
                    python=f'with_check=auth_uid("{column.name}")',
                    text="Or revoke INSERT on the column: grant it on the other columns only.",
                ),
            )


def _of_another(insertions: _Insertions) -> tuple[Case, Level] | None:
    """Return a case in which a caller, who isn't an administrator, inserts a row of someone else."""
    for case in insertions.of_others:
        if (insertions.has_power(case) and insertions.are_denied) or (
            insertions.is_of_each_row(case) and insertions.are_bound
        ):
            continue
        return case, "error"
    return None


def _of_any(insertions: _Insertions) -> tuple[Case, Level] | None:
    """Return a case in which a caller inserts a row with a column that no policy reads.

    The column may be a note of who wrote the row.
    """
    noted: Case | None = None
    for case in insertions.inserted:
        if not (insertions.has_power(case) and insertions.are_denied):
            return case, "warning"
        if not insertions.is_of_each_row(case):
            # Of an organization, for example, whose rows its members share.
            noted = noted or case
    return None if noted is None else (noted, "info")


@dataclass(eq=False)
class _Insertions:
    """The rows that callers of one role insert, by whose value a column has."""

    reaches: Reaches
    reach: Reach
    column: str

    @cached_property
    def _cases(self) -> Sequence[Case]:
        return list(self.reach.cases(self.reach.identified))

    @cached_property
    def inserted(self) -> Sequence[Case]:
        """The cases in which the caller may insert the row."""
        return [one for one in self._cases if self._may(one)]

    @cached_property
    def of_others(self) -> Sequence[Case]:
        """Those in which the column has the value of someone else."""
        return [one for one in self.inserted if self._is_of_another(one)]

    def has_power(self, case: Case) -> bool:
        """Return whether the caller may read the row, and change or delete it."""
        reach = self.reach
        return reach.is_true("select", case) and (
            reach.is_true("update", case) or reach.is_true("delete", case)
        )

    def is_of_each_row(self, case: Case) -> bool:
        """Return whether the caller may insert each row of another in question, with the same other rows."""
        same = [one for one in self._cases if _context(one) == _context(case)]
        return all(self._may(one) for one in same)

    @cached_property
    def are_denied(self) -> bool:
        """Whether other callers may not insert a row."""
        return any(not self._may(one) for one in self._cases) or any(
            one is None or any(not one._may(case) for case in one._cases) for one in self._below
        )

    @cached_property
    def are_bound(self) -> bool:
        """Whether other callers may insert their own rows, and none of someone else."""
        return self._binds or any(one is not None and one._binds for one in self._below)

    @cached_property
    def _binds(self) -> bool:
        own, denied = set[str](), set[str]()
        for case in self._cases:
            if self._is_of_another(case):
                if not self._may(case):
                    denied.add(_context(case))
            elif self._may(case) and case.row.values.get(self.column) is not None:
                own.add(_context(case))
        return not own.isdisjoint(denied)

    @cached_property
    def _below(self) -> Sequence[_Insertions | None]:
        """The other roles of callers, if this one may be that of administrators; None may not insert."""
        database, name = self.reaches.database, self.reach.relation.name
        if self.reach.role in (*KNOWN_CALLERS, PUBLIC):
            return []
        found: list[_Insertions | None] = []
        inserting = database.roles_with_privileges(name, "INSERT")
        for role in (one.name for one in database.callers):
            if role == self.reach.role or database.is_anonymous(role):
                continue
            if role not in inserting:
                found.append(None)
            elif database.is_active(name, role) and (reach := self.reaches.of_table(name, role)) is not None:
                found.append(_Insertions(self.reaches, reach, self.column))
        return found

    def _may(self, case: Case) -> bool:
        return self.reach.is_true("insert", case)

    def _is_of_another(self, case: Case) -> bool:
        own = {str(value) for value in (case.actor.claims or {}).values()} | {*case.actor.settings.values()}
        value = case.row.values.get(self.column)
        return value is not None and str(value) not in own


def _context(case: Case) -> str:
    """Return the caller and the rows of other tables."""
    others = [row for row in case.world.rows if row.relation != case.row.relation]
    return repr((case.place[0], sorted(map(repr, others))))
