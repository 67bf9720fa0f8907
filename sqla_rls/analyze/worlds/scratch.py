"""Runs the statements of a world on real rows, and undoes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.limit import TimeIsOver, TimeLimit
from sqla_rls.analyze.worlds.objects import PUBLIC
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.statements import Statement, insertion
from sqla_rls.analyze.worlds.world import World
from sqla_rls.exc import AnalysisError

#: Milliseconds for the statements of one round trip: a policy may never end.
STATEMENT_TIMEOUT: Final = 20_000
#: The place in the information of a connection for the milliseconds that are set.
_TIMEOUT: Final = "sqla_rls_statement_timeout"
#: The SQLSTATE of a statement that takes too long.
_CANCELED: Final = "57014"
#: The most statements of one round trip that has more than one world.
_MOST_AT_ONCE: Final = 1_000
#: Whether the triggers of tables fire for the rows of a world: those of foreign keys do "without" others, and
#: with "none" they don't.
_Triggers: TypeAlias = Literal["fire", "without", "none"]
_FIRES: Final = "SET LOCAL session_replication_role ="
_TRY: Final = text(script("try_worlds"))
_CREATE_STAND_IN: Final = f"""
DO $$
BEGIN
  IF pg_catalog.to_regrole('"{PUBLIC}"') IS NULL THEN
    CREATE ROLE "{PUBLIC}";
  END IF;
EXCEPTION
  -- Another connection creates it.
  WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$
"""
_ALWAYS_CHECK: Final = """
DO $$
DECLARE
  one record;
BEGIN
  FOR one IN
    SELECT t.tgrelid::pg_catalog.regclass AS relation, t.tgname
      FROM pg_catalog.pg_trigger AS t
     WHERE t.tgisinternal AND t.tgenabled = 'O' AND t.tgconstraint <> 0 AND t.tgparentid = 0
  LOOP
    EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', one.relation, one.tgname);
  END LOOP;
END $$
"""
_ACCEPTS: Final = text("SELECT pg_temp.sqla_rls_accepts(:type, :value)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a statement."""

    rows: tuple[str, ...] = ()
    count: int = 0
    error: str | None = None
    #: Whether the error is that of a SELECT.
    is_read: bool = False

    @classmethod
    def of(cls, found: str) -> Outcome:
        value = json.loads(found)
        rows = tuple(value.get("rows") or ())
        return cls(
            rows=rows,
            count=value.get("count", len(rows)),
            error=value.get("error"),
            is_read=value.get("is_read", False),
        )

    def permits_more_than(self, other: Outcome) -> bool:
        """Return whether it shows or changes a row that *other* doesn't.

        A constraint that *other* violates isn't a denial: its statement reaches more rows.  In a SELECT, it
        is the check of a domain, in a policy.
        """
        if other.error is not None and other.error.startswith("23") and not other.is_read:
            return False
        if self.rows or other.rows:
            return bool(Counter(self.rows) - Counter(other.rows))
        return self.count > other.count

    @property
    def is_rejected(self) -> bool:
        """Whether a policy or a constraint rejected a new row, which undid the whole statement."""
        return self.error is not None and self.error.startswith(("42501", "44000", "23"))

    def __str__(self) -> str:
        if self.error is not None:
            return self.error.partition("\n")[0]
        return f"{self.count} row{'' if self.count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A world, and the statements that are tried in it."""

    world: World
    statements: Sequence[Statement]


@dataclass(frozen=True, slots=True)
class Tried:
    """The results of the statements of a world, as JSON texts: for each caller, in their order."""

    results: tuple[str, ...] = ()
    #: Why the world is none.
    rejected: str | None = None
    #: The tables whose rows were inserted without their triggers, which refused the world.
    without_triggers: tuple[str, ...] = ()

    def outcome(self, place: int) -> Outcome:
        return Outcome.of(self.results[place])


def is_canceled(error: DBAPIError) -> bool:
    """Return whether Postgres ended the statement, since it took too long."""
    return getattr(error.orig, "sqlstate", None) == _CANCELED


def answer(connection: Connection, statement: str) -> bool | None:
    """Return the boolean that *statement* gives; None is an error, which fails a transaction in progress."""
    try:
        found: bool | None = connection.exec_driver_sql(
            statement, execution_options={"no_parameters": True}
        ).scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    return found


@dataclass(frozen=True, slots=True)
class ScratchDatabase:
    """A database whose data has no use, and its catalog."""

    connection: Connection
    schema: Schema

    @classmethod
    def open(cls, connection: Connection) -> ScratchDatabase:
        """Read the catalog, and make the functions that try statements, in schema ``pg_temp``.

        Args:
            connection: a superuser's connection with psycopg, to a server whose roles have no use.  Its
                transaction is committed, and it is put into AUTOCOMMIT.

        Emits:
            ``CREATE ROLE "PUBLIC"`` and ``CREATE FUNCTION``.
        """
        connection.commit()
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        if not connection.scalar(
            text("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        ):
            raise AnalysisError("statements can't be tried: the role isn't a superuser. Connect as one")
        create_stand_in(connection)
        schema = Schema.read(connection, of_new_rows=True)
        for name in ("try_statements", "accepts"):
            connection.exec_driver_sql(script(name))
        opened = cls(connection, schema)
        opened._set_timeout(STATEMENT_TIMEOUT)
        return opened

    def accepts(self, type_: str, value: str) -> bool:
        """Return whether *value* is a value of that type."""
        return bool(self.connection.scalar(_ACCEPTS, {"type": type_, "value": value}))

    def asks(self, statement: str) -> bool | None:
        """Return the boolean that *statement* gives; None is an error."""
        return answer(self.connection, statement)

    def run(
        self,
        trials: Sequence[Trial],
        actors: Sequence[Actor],
        *,
        fires_triggers: bool = True,
        about: str | None = None,
        limit: TimeLimit | None = None,
    ) -> list[Tried]:
        """Insert the rows of each world that this database has tables for, and run each statement.

        Args:
            trials: the worlds with their statements.
            actors: the callers.
            fires_triggers: False: triggers and foreign keys ignore the rows of a world, and not those of a
                statement.  True: if the database refuses the rows, they are inserted without the triggers
                of their tables.
            about: a relation; the materialized views that access to it reads are filled with the rows.
            limit: the time limit; without one, a round of statements may take STATEMENT_TIMEOUT.

        Raises:
            TimeIsOver: the time of *limit* is over before all statements are tried.
        """
        limit = limit or TimeLimit()
        found = self._run_all(trials, actors, "fire" if fires_triggers else "none", about, limit)
        if not fires_triggers:
            return found
        return self._with_refused(trials, actors, about, limit, found)

    def run_without_triggers(
        self,
        trials: Sequence[Trial],
        actors: Sequence[Actor],
        *,
        about: str | None = None,
        limit: TimeLimit | None = None,
    ) -> list[Tried]:
        """Run *trials* like ``run()``; insert the rows without the triggers of their tables."""
        # The checks of foreign keys are triggers, too.
        self.connection.exec_driver_sql(_ALWAYS_CHECK, execution_options={"no_parameters": True})
        return self._run_all(trials, actors, "without", about, limit or TimeLimit())

    def _with_refused(
        self,
        trials: Sequence[Trial],
        actors: Sequence[Actor],
        about: str | None,
        limit: TimeLimit,
        found: list[Tried],
    ) -> list[Tried]:
        """Return *found* with the results of the worlds that only a trigger refuses."""
        places = [
            place
            for place, (trial, tried) in enumerate(zip(trials, found, strict=True))
            if tried.rejected is not None and self._silenced(trial.world)
        ]
        if not places:
            return found
        asked = [trials[place] for place in places]
        again = self.run_without_triggers(asked, actors, about=about, limit=limit)
        for place, tried in zip(places, again, strict=True):
            if tried.rejected is None:
                found[place] = tried
        return found

    def _silenced(self, world: World) -> tuple[str, ...]:
        """Return the tables of *world* whose triggers can be left out; none if another kind would fire."""
        triggers = {
            row.relation: self.schema.relations[row.relation].triggers
            for row in world.all_rows
            if row.relation in self.schema.relations
        }
        # Each text ends with pg_trigger.tgenabled.
        if any(not one.endswith((" O", " D")) for texts in triggers.values() for one in texts):
            return ()
        return tuple(name for name, texts in triggers.items() if any(one.endswith(" O") for one in texts))

    def _run_all(
        self,
        trials: Sequence[Trial],
        actors: Sequence[Actor],
        triggers: _Triggers,
        about: str | None,
        limit: TimeLimit,
    ) -> list[Tried]:
        found: list[Tried] = []
        for some in _rounds(trials, len(actors)):
            limit.check()
            self._set_timeout(limit.milliseconds(STATEMENT_TIMEOUT))
            try:
                found += self._run(some, actors, triggers, about)
            except DBAPIError as error:
                if is_canceled(error) and limit.is_over:
                    raise TimeIsOver from error
                raise
        return found

    def _set_timeout(self, milliseconds: int) -> None:
        if self.connection.info.get(_TIMEOUT) != milliseconds:
            self.connection.execute(text(f"SET statement_timeout = {milliseconds}"))
            self.connection.info[_TIMEOUT] = milliseconds

    def _around(self, world: World, triggers: _Triggers) -> tuple[list[str], list[str]]:
        """Return the statements before the rows of *world*, and those after them."""
        if triggers == "none" or (triggers == "without" and self._silenced(world)):
            return [f"{_FIRES} replica"], [f"{_FIRES} origin"]
        return [], []

    def _run(
        self, trials: Sequence[Trial], actors: Sequence[Actor], triggers: _Triggers, about: str | None
    ) -> Iterator[Tried]:
        views = [] if about is None else self.schema.materialized(about)
        refreshed = [f"REFRESH MATERIALIZED VIEW {name}" for name in views]
        around = [self._around(trial.world, triggers) for trial in trials]
        worlds = [
            {
                "fixtures": [
                    *first,
                    *(
                        insertion(self.schema.relations[row.relation], row.values)
                        for row in trial.world.all_rows
                        if row.relation in self.schema.relations
                    ),
                    *last,
                    *refreshed,
                ],
                "statements": [statement.tried for statement in trial.statements],
            }
            for trial, (first, last) in zip(trials, around, strict=True)
        ]
        parameters = {
            "worlds": json.dumps(worlds),
            "actors": json.dumps([_settings(actor) for actor in actors]),
        }
        answers = self.connection.execute(_TRY, parameters).scalars()
        for trial, found in zip(trials, answers, strict=True):
            yield Tried(
                results=tuple(found["results"] or ()),
                rejected=found["rejected"],
                without_triggers=self._silenced(trial.world) if triggers == "without" else (),
            )


def _rounds(trials: Iterable[Trial], actors: int) -> Iterator[list[Trial]]:
    some: list[Trial] = []
    statements = 0
    for trial in trials:
        number = len(trial.statements) * actors
        if some and statements + number > _MOST_AT_ONCE:
            yield some
            some, statements = [], 0
        some.append(trial)
        statements += number
    if some:
        yield some


def create_stand_in(connection: Connection) -> None:
    """Create role ``"PUBLIC"``, unless it exists: its statements are those of any role, also of a future one.

    Args:
        connection: a superuser's connection to a scratch server.  Roles belong to all databases of a server.
    """
    connection.exec_driver_sql(_CREATE_STAND_IN, execution_options={"no_parameters": True})


def _settings(actor: Actor) -> dict[str, Any]:
    claims = "" if actor.claims is None else json.dumps(actor.claims)
    return {"role": actor.role, "settings": {"request.jwt.claims": claims, **actor.settings}}


def roles_of(schemas: Iterable[Schema]) -> list[str]:
    """Return the roles that row security can hold for on any side."""
    return sorted(
        {role.name for schema in schemas for role in schema.roles.values() if not role.is_superuser}
    )
