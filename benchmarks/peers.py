"""Who compares policies with a database, and how: Alembic alone, this library, others.

Each declares four policies on every table, for the caller's own rows, as its documentation has it.  Imports
are made on demand: once it is imported, a library takes part in every comparison of its process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, column, text
from sqlalchemy.orm import declarative_base
from sqlalchemy.schema import SchemaItem

#: The models, and what makes their tables and policies.
Declared: TypeAlias = tuple[MetaData, Callable[[Engine], None]]

COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_OWN = "user_id = (SELECT nullif(current_setting('rls.user_id', true), ''))"


def alone(tables: int) -> Declared:
    metadata = _models(tables)
    return metadata, partial(_create_tables, metadata=metadata)


def sqla_rls(tables: int) -> Declared:
    from sqla_rls import auth_uid, authenticated, crud_policy

    metadata = _models(
        tables, lambda: crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))
    )
    return metadata, partial(_create_tables, metadata=metadata)


def rls(tables: int) -> Declared:
    """It asks table by table, and compares texts without their casts and parentheses."""
    schemas = import_module("rls.schemas")
    base: Any = declarative_base()
    models = base.metadata.info["models"] = []  # SQLAlchemy holds them weakly
    for number in range(tables):
        policy = schemas.Permissive(
            condition_args=[schemas.ConditionArg(comparator_name="user_id", type=Text)],
            cmd=[schemas.Command(command) for command in COMMANDS],
            custom_expr=lambda user_id: column("user_id") == user_id,
        )
        own: dict[str, Any] = {"__tablename__": f"table_{number}", "__rls_policies__": [policy]}
        models.append(type(f"Table{number}", (base,), own | {one.name: one for one in _columns()}))
    import_module("rls.register_rls").register_rls(base)
    return base.metadata, base.metadata.create_all


def pgalchemy(tables: int) -> Declared:
    """It makes each policy anew, under a lock on its table, reads it back, and undoes that."""
    library: Any = import_module("pgalchemy")
    import_module("pgalchemy.alembic").register_entities()
    metadata = _models(tables)
    policies = []
    for table in metadata.tables.values():
        own = [
            library.Policy(
                f"own_{command.lower()}",
                for_=library.PolicyCommands[command],
                using=None if command == "INSERT" else _OWN,
                with_check=_OWN if command in ("INSERT", "UPDATE") else None,
            )
            for command in COMMANDS
        ]
        import_module("pgalchemy.rls").rls_for_table(policies=own)(table)
        policies += own
    return metadata, lambda engine: _create(engine, metadata, (text(one.create_sql()) for one in policies))


def alembic_utils(tables: int) -> Declared:
    """It makes each policy anew, too, and reads those of the whole schema back each time.

    Whether row security is enabled, it doesn't compare.
    """
    policy: Any = import_module("alembic_utils.pg_policy").PGPolicy
    metadata = _models(tables)
    entities = [
        policy(
            schema="public",
            signature=f"own_{command.lower()}",
            on_entity=f"public.{table}",
            definition=f"as permissive for {command} to public"
            + (f" using ({_OWN})" if command != "INSERT" else "")
            + (f" with check ({_OWN})" if command in ("INSERT", "UPDATE") else ""),
        )
        for table in metadata.tables
        for command in COMMANDS
    ]
    import_module("alembic_utils.replaceable_entity").register_entities(entities, entity_types=[policy])
    return metadata, lambda engine: _create(
        engine, metadata, (one.to_sql_statement_create() for one in entities)
    )


LIBRARIES = {"sqla-rls": sqla_rls, "rls": rls, "pgalchemy": pgalchemy, "alembic_utils": alembic_utils}


def installed() -> dict[str, str]:
    """The version of each of LIBRARIES."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            print(f"{library} isn't installed, and so isn't measured")
    print("rlsalchemy isn't measured: it wants Python 3.14")
    return found


def _models(tables: int, policies: Callable[[], SchemaItem] | None = None) -> MetaData:
    metadata = MetaData()
    for number in range(tables):
        Table(f"table_{number}", metadata, *_columns(), *([policies()] if policies else []))
    return metadata


def _columns() -> list[Column[Any]]:
    return [Column("id", Integer, primary_key=True), Column("user_id", Text, index=True)]


def _create_tables(engine: Engine, metadata: MetaData) -> None:
    # A transaction locks each table that it creates, and a server has memory for some thousand locks.
    tables = iter(metadata.tables.values())
    while part := [*islice(tables, 500)]:
        metadata.create_all(engine, part)


def _create(engine: Engine, metadata: MetaData, policies: Iterable[Any]) -> None:
    _create_tables(engine, metadata)
    with engine.begin() as connection:
        for table in metadata.tables:
            connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
        for policy in policies:
            connection.execute(policy)
