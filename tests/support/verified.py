"""Databases that verify a signature: by the extension, by its stand-in, or by functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import CreateSchema

from sqla_rls import BindingOptions, enforce_row_security
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.driver.base import Transport
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.postgres import Server
from tests.support.sessions import by_transports, database_with_tables

FUNCTIONS = "functions"
TOKEN = text("SELECT current_setting('pg_session_jwt.jwt', true)")
CLAIMS = text("SELECT auth.session()")
USER = text("SELECT auth.user_id()")
#: The claims beside the token.
UNSIGNED = text("SELECT current_setting('request.jwt.claims', true)")


@contextmanager
def database_for_signatures(name: str, server: Server) -> Iterator[str]:
    """``database_with_tables()``, whose functions verify signatures, unless the extension *name* does."""
    # A schema that is there already keeps the extension out.
    before = [CreateSchema("auth"), CreateAuthFunctions(signed=True)] if name == FUNCTIONS else []
    with database_with_tables(server, *before) as database:
        yield database


def make_key(admin: Engine, grace: float = 3600) -> str:
    with admin.begin() as connection:
        return rotate_signing_key(connection, grace=timedelta(seconds=grace))


MESSAGE: Transport = "with_begin"
by_one_transport = by_transports(MESSAGE)


def signed_sessions(engine: Engine, key: Any = None) -> sessionmaker[Session]:
    maker = sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    return maker
