"""Opens the target of a run: a database that is only read, or a scratch database of models and the like."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from sqlalchemy import Connection, MetaData, text

from sqla_rls.analyze.lint.database import ANONYMOUS_ROLES, Database
from sqla_rls.analyze.sides.scratch import SUPERUSER, Owner
from sqla_rls.analyze.sides.side import Built, Side, database_url
from sqla_rls.analyze.sides.url import engine_of
from sqla_rls.analyze.why.trust import Untrusted


@contextmanager
def open_target(
    target: str,
    side: Side,
    *,
    schemas: Sequence[str] = (),
    anonymous_roles: Collection[str] = ANONYMOUS_ROLES,
    models: Sequence[MetaData] = (),
    trusted_owners: Collection[str] = (),
) -> Iterator[Database]:
    """Give the database of *target*, until the end of the block.

    A URL is that database itself, in a transaction that is read only.  Its scratch database is built when a
    rule asks for it.  Any other target is built as a scratch database at once.

    Args:
        target: a database URL, ``models``, ``rev:REVISION`` or the path of a snapshot file.
        side: ``Side.parse()`` of it.
        schemas: the schemas that are looked at; empty is all.
        anonymous_roles: the roles of callers without a token.
        models: the models of the tables, where they are given.
        trusted_owners: the roles whose code may run with the rights of the connection.

    Raises:
        AnalysisError: the target can't be read or built.
    """
    if "://" in target:
        engine = engine_of(
            database_url(target),
            # Of the same moment: the owners of objects, and what these call.
            isolation_level="REPEATABLE READ",
        )
        with engine.connect() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            database = Database(
                connection=connection,
                schemas=schemas,
                anonymous_roles=anonymous_roles,
                models=models,
                untrusted=Untrusted.read(connection).trusting(trusted_owners),
            )
            database.open_scratch = lambda: _built(side, database)
            yield database
        return
    with side.build() as built:
        database = Database(
            connection=built.connection,
            schemas=schemas,
            anonymous_roles=anonymous_roles,
            models=models,
            # The owner of models and of a revision has LOGIN for the statements that build it.
            made_up_roles=[SUPERUSER] if side.has_owner else [SUPERUSER, (side.owner or Owner()).name],
            open_scratch=lambda: nullcontext(built.connection),
            is_scratch=True,
        )
        _note_parts(database, built)
        for name, reason in database.incomplete.items():
            database.note_unknown(name, reason)
        yield database


@contextmanager
def _built(side: Side, database: Database) -> Iterator[Connection]:
    with side.build() as built:
        _note_parts(database, built)
        yield built.connection


def _note_parts(database: Database, built: Built) -> None:
    """Note in *database* what its scratch database doesn't have."""
    database.left_out += [one for one in built.left_out if one not in database.left_out]
    for name, parts in built.incomplete.items():
        database.incomplete[name] = f"the scratch database has it only in part: {'; '.join(sorted(parts))}"
