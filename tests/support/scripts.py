"""Databases in which a script has run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.testing.postgres import Server


@contextmanager
def database_of(server: Server, template: str, script: str, *, role: str) -> Iterator[Engine]:
    """Give the superuser of a new database in which *script* has run; *role* exists before it."""
    name = server.create_database(template=template)
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"DO $$BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END$$"
        )
        connection.execute(text(script.replace(":", r"\:")))
    yield engine
    server.drop_database(name)
