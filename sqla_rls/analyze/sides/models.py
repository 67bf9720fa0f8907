"""Fills a scratch database from models."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

import sqla_rls.schema_events  # noqa: F401  # its listeners create the policies
from sqla_rls.analyze.sides.missing import of_another_program
from sqla_rls.analyze.sides.scratch import Owner, Scratch
from sqla_rls.declare.collect import declared
from sqla_rls.exc import AnalysisError, RowSecurityError
from sqla_rls.snapshot import PUBLIC, ROLE_KEYWORDS, Snapshot


def load_metadata(name: str) -> MetaData:
    """Import ``package.module:object``: a declarative base, a MetaData, or an object with a MetaData.

    Raises:
        AnalysisError: it can't be imported, or has no MetaData.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # The script sqla-rls doesn't have it there, unlike python -m.
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in (attribute or "Base").split("."):
            found = getattr(found, part)
    except Exception as error:
        raise AnalysisError(
            f"the models {name!r} can't be imported: {type(error).__name__}: {error}. "
            "Give package.module:Base, and set PYTHONPATH to the directory of the package"
        ) from error
    metadata = found if isinstance(found, MetaData) else getattr(found, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise AnalysisError(
            f"the models {name!r} can't be read: the object has no MetaData. Give the declarative base, or a "
            "MetaData"
        )
    return metadata


def module_file(name: str) -> str | None:
    """Return the file of ``package.module:object`` below the current directory; nothing is imported."""
    parts = name.partition(":")[0].split(".")
    here = Path.cwd()
    for directory in (here, *map(Path, sys.path)):
        base = here.joinpath(directory, *parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file() and path.is_relative_to(here):
                return path.relative_to(here).as_posix()
    return None


def create_models(metadatas: Iterable[MetaData], scratch: Scratch, owner: Owner) -> None:
    """Create the tables, roles and policies of *metadatas* in the scratch database, as *owner*.

    Raises:
        AnalysisError: the database refuses.
    """
    metadatas = list(metadatas)
    snapshot = declared(metadatas)
    scratch.left_out.append(f"Models have no owner: role {owner.name} owns the objects.")
    with scratch.owned_by(owner) as url:
        engine = create_engine(url, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                _create_missing(connection, metadatas, snapshot, scratch)
                for metadata in metadatas:
                    metadata.create_all(connection)
        except (RowSecurityError, SQLAlchemyError) as error:
            cause = getattr(error, "orig", None) or error
            reason = " ".join(str(cause).split())
            raise AnalysisError(
                f"the models can't be created in the scratch database: {reason}{of_another_program(cause)}"
            ) from error


def _create_missing(
    connection: Connection, metadatas: Iterable[MetaData], snapshot: Snapshot, scratch: Scratch
) -> None:
    """Create the schemas, and the roles that declarations name without declaring them."""
    quote = connection.dialect.identifier_preparer.quote
    schemas = {table.schema for metadata in metadatas for table in metadata.tables.values()}
    schemas |= {key.schema for key in (*snapshot.functions, *snapshot.views)}
    for schema in sorted(filter(None, schemas)):
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}")
    found = connection.scalars(text("SELECT rolname FROM pg_catalog.pg_roles"))
    known = {*found, *snapshot.roles, *ROLE_KEYWORDS, PUBLIC}
    for role in sorted(set(_named_roles(snapshot)) - known):
        connection.exec_driver_sql(f"CREATE ROLE {quote(role)}")
        scratch.left_out.append(f"Role {role} isn't declared: it has no attributes and no memberships.")


def _named_roles(snapshot: Snapshot) -> Iterator[str]:
    for policy in snapshot.policies.values():
        yield from policy.roles
    yield from (one.grantee for one in snapshot.privileges)
    yield from (one.grantee for one in snapshot.default_privileges)
    for role in snapshot.roles.values():
        for group in role.member_of or ():
            yield group if isinstance(group, str) else group.name
