"""``make serve``: the application on its address, with everything that it needs.

Without variables, that is an embedded Postgres, a stand-in for Stack Auth, and three people with todos.  All
are gone when it stops.  ``.env.example`` has the variables for a database and a Stack Auth project of your
own.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

# Run as a script, Python looks for modules beside this file; the package todos is one further up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import SigningUnavailable
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.development import development_database
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import find_server
from todos.lists import List, ListTodo, Member
from todos.models import Todo
from todos.stand_in import PEOPLE, stand_in

HERE: Final = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the todos application.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 is a free port")
    arguments = parser.parse_args()
    # Either signal raises KeyboardInterrupt, also while Postgres starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    read_env_file()
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((arguments.host, arguments.port)))
        issuer = None if "STACK_PROJECT_ID" in os.environ else stack.enter_context(Issuer())
        if issuer is not None:
            os.environ.update(STACK_PROJECT_ID=issuer.project_id, STACK_BASE_URL=issuer.base_url)
        if "DATABASE_URL" in os.environ:
            prepare(make_url(os.environ["DATABASE_URL"]))
        else:
            stack.enter_context(embedded_database())
        # Like most, it reads the environment when it is imported.
        from todos.app import app

        if issuer is not None:
            app.include_router(stand_in(issuer))
            app.state.auth_url, app.state.people = "/stand-in", PEOPLE
        print(f"Todos: http://{arguments.host}:{listening.getsockname()[1]} (stop with Ctrl+C)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


def read_env_file() -> None:
    """Read examples/todos/.env, if it exists; the variables that are set already win."""
    with suppress(FileNotFoundError):
        for line in (HERE / ".env").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if value and not name.startswith("#"):
                os.environ.setdefault(name.strip(), value.strip())


@contextmanager
def embedded_database() -> Iterator[None]:
    """A migrated database with a signing key, and the todos of three people."""
    # It warns of the rights of PUBLIC that a superuser should revoke: this server has no other users.
    logging.getLogger("sqla_rls.neon_http").setLevel(logging.ERROR)
    with find_server() as server, development_database(server) as database:
        prepare(database.owner)
        os.environ["DATABASE_AUTHENTICATED_URL"] = database.app.render_as_string(hide_password=False)
        write_todos(database.app)
        yield


def prepare(owner: URL) -> None:
    """Migrate, and make the database verify who has signed a caller, by the key in SQLA_RLS_SIGNING_KEY.

    SQL over HTTP needs that: the SQL of a caller could claim to be another one.  A database with
    pg_session_jwt verifies by itself.
    """
    os.environ["DATABASE_URL"] = owner.set(drivername="postgresql").render_as_string(hide_password=False)
    command.upgrade(Config(HERE / "alembic.ini"), "head")
    if "SQLA_RLS_SIGNING_KEY" in os.environ:
        return
    engine = create_engine(owner.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with suppress(SigningUnavailable), engine.begin() as connection:
        operations: Any = Operations(MigrationContext.configure(connection))
        operations.create_auth_functions(signed=True)
        os.environ["SQLA_RLS_SIGNING_KEY"] = rotate_signing_key(connection)


def write_todos(app: URL) -> None:
    """Write the first rows, as the people that they belong to."""
    engine = create_engine(app)
    sessions = sessionmaker(engine)
    enforce_row_security(sessions)

    for person, tasks in {
        "alice": ["Buy milk", "Call mum"],
        "bob": ["Fix the bike"],
        "carol": ["Plan the party", "Return the books"],
    }.items():
        with sessions() as session:
            identify(session, Caller(role="authenticated", subject=person))
            session.add_all([Todo(task=task) for task in tasks])
            session.commit()

    for admin, name, is_public, tasks in (
        ("alice", "Household", False, ["Water the plants", "Pay the rent"]),
        ("carol", "Town board", True, ["Street party on Saturday", "Book swap at the library"]),
    ):
        with sessions() as session:
            identify(session, Caller(role="authenticated", subject=admin))
            shared = List(name=name, is_public=is_public)
            session.add(shared)
            session.flush()
            session.add(Member(list_id=shared.id, user_id=admin, role="admin"))
            session.flush()
            session.add_all([ListTodo(list_id=shared.id, task=task) for task in tasks])
            if admin == "alice":
                session.add(Member(list_id=shared.id, user_id="bob", role="member"))
            session.commit()
    engine.dispose()


if __name__ == "__main__":
    main()
