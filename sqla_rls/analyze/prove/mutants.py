"""The mutants of a database: each weakens its row security in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.prove.weaken import Columns, Weakening, WeakeningKind, weakenings
from sqla_rls.analyze.why.target import query
from sqla_rls.catalog.query import undone

MutantKind: TypeAlias = (
    WeakeningKind
    | Literal["true", "check", "permissive", "public", "row_security", "forced", "invoker", "grant"]
)

_SEARCH_PATH: Final = "SET LOCAL search_path = pg_catalog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A weakening of a table or view."""

    kind: MutantKind
    #: The table or view, as Postgres quotes it.
    object: str
    #: Unique among the mutants of a database.
    name: str
    #: The weakening in one sentence.
    text: str
    policy: str | None = None
    apply: tuple[str, ...]
    undo: tuple[str, ...]


def mutants(connection: Connection) -> list[Mutant]:
    """Return the mutants of a database that Postgres accepts, ordered by object.

    Each is tried and undone in a savepoint.  One that Postgres refuses, or that changes nothing, is left out.

    Args:
        connection: a connection of a superuser, or of the owner of all tables.

    Raises:
        AnalysisError: PostgreSQL's parser is missing.

    Emits:
        SELECT statements over the catalog; ``ALTER POLICY``, ``GRANT`` and the like, which are rolled back.
    """
    with undone(connection):
        connection.exec_driver_sql(_SEARCH_PATH)
        found = [dict(row) for row in connection.execute(query("weakenable")).mappings()]
        columns = {(each["schema"], each["relname"]): each["columns"] or {} for each in found}
        made = [mutant for relation in found for mutant in _of_relation(relation, columns)]
        return [mutant for mutant in made if _is_accepted(connection, mutant)]


def run(connection: Connection, statements: Iterable[str]) -> None:
    """Run *statements* of a mutant."""
    for statement in statements:
        # Without parameters, psycopg leaves a percent sign alone.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def access_state(connection: Connection, relation: str | None = None) -> Mapping[str, str]:
    """Return everything that a mutant may change, by the names of tables and views.

    Args:
        connection: any connection.
        relation: one table or view; all without it.
    """
    with undone(connection):
        connection.exec_driver_sql(_SEARCH_PATH)
        rows = connection.execute(query("access_state"), {"relation": relation}).mappings()
        return {row["name"]: row["state"] for row in rows}


def _is_accepted(connection: Connection, mutant: Mutant) -> bool:
    before = access_state(connection, mutant.object)
    try:
        with undone(connection):
            run(connection, mutant.apply)
            after = access_state(connection, mutant.object)
            run(connection, mutant.undo)
            restored = access_state(connection, mutant.object)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return False
    return before == restored and before != after


def _of_relation(relation: Mapping[str, Any], columns: Columns) -> Iterator[Mutant]:
    name = relation["name"]
    if relation["is_view"]:
        if (invoker := relation["invoker"]) in ("true", "on", "1", "yes"):
            yield Mutant(
                kind="invoker",
                object=name,
                name=f"{name}: no security_invoker",
                text=f"View {name} reads its tables as its owner, not as the caller.",
                apply=(f"ALTER VIEW {name} SET (security_invoker = false)",),
                undo=(f"ALTER VIEW {name} SET (security_invoker = {invoker})",),
            )
    elif not relation["row_security"]:
        return
    else:
        yield Mutant(
            kind="row_security",
            object=name,
            name=f"{name}: no row security",
            text=f"Row security of {name} is off: its policies don't hold.",
            apply=(f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",),
            undo=(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",),
        )
        if relation["forced"]:
            yield Mutant(
                kind="forced",
                object=name,
                name=f"{name}: not forced",
                text=f"Row security of {name} doesn't hold for the owner of the table.",
                apply=(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",),
                undo=(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",),
            )
        for policy in relation["policies"]:
            yield from _Policy((relation["schema"], relation["relname"]), name, policy, columns).mutants()
    for granted in relation["grantable"]:
        role, privilege = granted["role"], granted["privilege"]
        yield Mutant(
            kind="grant",
            object=name,
            name=f"{name}: {privilege} to {role}",
            text=f"{role} has the privilege {privilege} on {name}.",
            apply=(f"GRANT {privilege} ON {name} TO {role}",),
            undo=(f"REVOKE {privilege} ON {name} FROM {role}",),
        )


@dataclass(frozen=True, slots=True)
class _Policy:
    key: tuple[str, str]
    table: str
    policy: Mapping[str, Any]
    columns: Columns

    @property
    def on(self) -> str:
        return f"{self.policy['quoted']} ON {self.table}"

    def mutants(self) -> Iterator[Mutant]:
        using, check = self.policy["using"], self.policy["check"]
        if using is not None:
            yield from self._of_expression("USING", using)
        if check is not None:
            yield from self._of_expression("WITH CHECK", check)
        elif self.policy["command"] in ("UPDATE", "ALL"):
            # ALTER POLICY can't take the WITH CHECK away again.
            yield self._mutant(
                "check",
                "WITH CHECK true",
                f"{self} admits every new row.",
                self._recreated(check="true"),
                self._recreated(),
            )
        if not self.policy["permissive"]:
            yield self._mutant(
                "permissive",
                "permissive",
                f"{self} is permissive: it admits rows, and no longer restricts them.",
                self._recreated(permissive=True),
                self._recreated(),
            )
        elif "PUBLIC" not in self.policy["roles"]:
            yield self._mutant(
                "public",
                "to PUBLIC",
                f"{self} is for every role.",
                (f"ALTER POLICY {self.on} TO PUBLIC",),
                (f"ALTER POLICY {self.on} TO {', '.join(self.policy['roles'])}",),
            )

    def _of_expression(self, part: str, predicate: str) -> Iterator[Mutant]:
        undo = (f"ALTER POLICY {self.on} {part} ({predicate})",)
        if predicate != "true":
            admits = "every row" if part == "USING" else "every new row"
            yield self._mutant(
                "true" if part == "USING" else "check",
                f"{part} true",
                f"{self} admits {admits}." if self.policy["permissive"] else f"{self} restricts no row.",
                (f"ALTER POLICY {self.on} {part} (true)",),
                undo,
            )
        for number, weakening in enumerate(weakenings(predicate, self.key, self.columns), 1):
            yield self._mutant(
                weakening.kind,
                f"{part} {number}",
                self._sentence(part, weakening),
                (f"ALTER POLICY {self.on} {part} ({weakening.predicate})",),
                undo,
            )

    def _sentence(self, part: str, weakening: Weakening) -> str:
        if weakening.columns is not None:
            old, new = weakening.columns
            return f"{part} of {self} has column {new} in place of {old}, in: {weakening.condition}"
        if weakening.kind == "correlation":
            lacks = f"It lacks: {weakening.condition}"
            return f"A subquery in {part} of {self} no longer depends on the row. {lacks}"
        return f"{part} of {self} lacks: {weakening.condition}"

    def _mutant(
        self, kind: MutantKind, name: str, sentence: str, apply: tuple[str, ...], undo: tuple[str, ...]
    ) -> Mutant:
        return Mutant(
            kind=kind,
            object=self.table,
            name=f"{self.table}: {self.policy['name']} {name}",
            text=sentence[0].upper() + sentence[1:],
            policy=self.policy["name"],
            apply=apply,
            undo=undo,
        )

    def _recreated(self, *, permissive: bool | None = None, check: str | None = None) -> tuple[str, ...]:
        policy = self.policy
        kind = "PERMISSIVE" if permissive or policy["permissive"] else "RESTRICTIVE"
        statement = (
            f"CREATE POLICY {self.on} AS {kind} FOR {policy['command']} TO {', '.join(policy['roles'])}"
        )
        if policy["using"] is not None:
            statement += f" USING ({policy['using']})"
        if (check := policy["check"] if check is None else check) is not None:
            statement += f" WITH CHECK ({check})"
        comment = policy["comment"]
        comments = () if comment is None else (f"COMMENT ON POLICY {self.on} IS {comment}",)
        return (f"DROP POLICY {self.on}", statement, *comments)

    def __str__(self) -> str:
        return f"policy {self.policy['name']!r} on {self.table}"
