"""The todos example from end to end, on a Postgres and a token issuer of its own.

It migrates, signs people in, lets them do what they may and tries what nobody may.  Each line that is
ticked compares what happened with what must happen; the last one counts them.
"""

from __future__ import annotations

import ast
import asyncio
import io
import os
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from textwrap import dedent, fill, indent
from typing import Any, Final

from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, CursorResult, Engine, Executable, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

# Run as a script, Python looks for modules beside this file; the package todos is one further up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqla_rls import Caller, identify
from sqla_rls.exc import CallerRequired, ExpiredToken, InvalidToken
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.testing.postgres import find_server
from todos.models import Todo
from todos.stage import (
    ROOT,
    Database,
    MigrationFailed,
    Refusal,
    Transcript,
    create_role,
    described,
    drop_role,
    in_full,
    new_database,
)

MIGRATION: Final = ROOT / "alembic" / "versions" / "0001_todos.py"
PERMISSION_DENIED: Final[Refusal] = InsufficientPrivilege, "permission denied for table todos"
NO_TEMPORARY: Final[Refusal] = InsufficientPrivilege, "permission denied to create temporary tables"
NO_FUNCTION: Final[Refusal] = InsufficientPrivilege, "permission denied for schema public"
ROW_SECURITY: Final[Refusal] = InsufficientPrivilege, "new row violates row-level security policy"


def main() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal has a tick, and who reads this through a pipe may want to see it grow.
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    transcript = Transcript()
    try:
        with find_server() as server, Issuer() as issuer, new_database(server) as database:
            print(f"PostgreSQL {server.version} on port {server.port}, tokens from {issuer.issuer}")
            tell(transcript, database, issuer)
    except KeyboardInterrupt:
        transcript.line(False, "the demo can't go on", "interrupted")
    except Exception as error:
        traceback.print_exc()
        transcript.line(False, "the demo can't go on", described(error))
    print(f"\n{transcript.passed} passed, {transcript.failed} failed")
    return 1 if transcript.failed else 0


def tell(transcript: Transcript, database: Database, issuer: Issuer) -> None:
    show_migration(transcript)
    before = migrate(transcript, database)
    migrated = database.inventory()
    os.environ["DATABASE_AUTHENTICATED_URL"] = in_full(make_login_role(transcript, database))
    os.environ["STACK_PROJECT_ID"] = issuer.project_id
    os.environ["STACK_BASE_URL"] = issuer.base_url
    # The app's own; like most it reads the environment when it is imported.
    from todos.database import AsyncSessionLocal, SessionLocal, async_engine, engine

    alice = Client(SessionLocal, issuer.token("alice"))
    bob = Client(SessionLocal, issuer.token("bob"))
    try:
        write_todos(transcript, alice, bob)
        write_under_asyncio(transcript, AsyncSessionLocal, async_engine, bob)
        try_hers(transcript, alice, bob)
        try_tokens(transcript, alice, bob, issuer)
        try_without(transcript, SessionLocal, engine, alice)
        look_behind(transcript, database, issuer)
    finally:
        engine.dispose()
    migrate_back(transcript, database, before, migrated)


# The story


def show_migration(transcript: Transcript) -> None:
    transcript.chapter(f"What autogenerate wrote: {MIGRATION.relative_to(ROOT)}")
    source = MIGRATION.read_text()
    (upgrade,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "upgrade")
    lines = source.splitlines()[upgrade.lineno : upgrade.end_lineno]
    print(indent(dedent("\n".join(line for line in lines if not line.strip().startswith("#"))), "    "))


def migrate(transcript: Transcript, database: Database) -> set[str]:
    """Apply the migration as the owner; what was in the database before."""
    transcript.chapter("Migrating, as the owner of the database, who is no superuser")
    print(f"  DATABASE_URL={database.owner}")
    before = database.inventory()
    try:
        database.alembic("upgrade", "head")
    except MigrationFailed as error:
        reason, needed, statement = str(error).partition("Have a superuser run, in this database: ")
        if not needed:
            raise
        # Here there is the extension pg_session_jwt: made by a mere owner, its schema is a superuser's.
        print(indent(fill(f"{reason}{needed}…", 96), "    "))
        transcript.equal("what it left behind", [], database.differences, before)
        print(f"  as a superuser: {statement}")
        database.superuser.execute(statement.encode())
        before = database.inventory()
        database.alembic("upgrade", "head")
    transcript.equal("revision", "0001", database.value, sql.SQL("SELECT version_num FROM alembic_version"))
    protected = sql.SQL("SELECT relrowsecurity FROM pg_class WHERE oid = 'todos'::regclass")
    transcript.equal("row security of todos", True, database.value, protected)
    transcript.equal("models and database", "No new upgrade operations detected.", database.alembic, "check")
    return before


def make_login_role(transcript: Transcript, database: Database) -> URL:
    transcript.chapter("The login role of requests: owns nothing, may become whoever calls")
    # NOINHERIT: while it is nobody in particular, it has the privileges of nobody.
    name = f"app{database.suffix}"
    url = database.owner.set(username=name, password=token_hex())
    create_role(database.superuser, url, "LOGIN NOINHERIT")
    grant = sql.SQL("GRANT authenticated, anonymous TO {}").format(sql.Identifier(name))
    database.superuser.execute(grant)
    print(f"  DATABASE_AUTHENTICATED_URL={url}")
    inherited = sql.SQL("SELECT pg_has_role({}, 'authenticated', 'USAGE')").format(name)
    transcript.equal("has by itself the privileges of authenticated", False, database.value, inherited)
    return url


def write_todos(transcript: Transcript, alice: Client, bob: Client) -> None:
    transcript.chapter("Alice and Bob sign in and write todos")
    done = update(Todo).values(is_complete=True)
    transcript.equal("alice adds two, and sees", ["buy milk", "call mum"], alice.add, "buy milk", "call mum")
    transcript.equal("bob adds one, and sees", ["fix bike"], bob.add, "fix bike")
    transcript.equal("alice completes one", "1 row", alice.run, done.where(Todo.task == "buy milk"))
    transcript.equal("bob completes whatever he can", "1 row", bob.run, done)
    transcript.equal("alice has completed", ["buy milk"], alice.tasks, Todo.is_complete)


def write_under_asyncio(
    transcript: Transcript, sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, bob: Client
) -> None:
    async def add_and_read() -> list[str]:
        try:
            async with sessions(token=bob.token) as session:
                session.add(Todo(task="drink tea"))
                await session.commit()
                return list(await session.scalars(select(Todo.task).order_by(Todo.id)))
        finally:
            await engine.dispose()  # its connections belong to this event loop

    transcript.chapter(f"The same under asyncio, with {engine.driver}")
    transcript.equal(
        "bob adds another, and sees", ["fix bike", "drink tea"], lambda: asyncio.run(add_and_read())
    )


def try_hers(transcript: Transcript, alice: Client, bob: Client) -> None:
    transcript.chapter("What Bob tries with Alice's todos")
    hers, his = Todo.user_id == "alice", Todo.user_id == "bob"
    one_of_hers = alice.id_of("buy milk")
    transcript.equal("reading one by its id", None, bob.get, one_of_hers)
    transcript.equal("reading all of hers", [], bob.tasks, hers)
    changed = update(Todo).where(Todo.id == one_of_hers).values(task="…")
    transcript.equal("changing one", "0 rows", bob.run, changed)
    transcript.equal("deleting all of hers", "0 rows", bob.run, delete(Todo).where(hers))
    in_her_name = insert(Todo).values(task="…", user_id="alice")
    transcript.refused("writing one in her name", ROW_SECURITY, bob.run, in_her_name)
    handed_over = update(Todo).where(his).values(user_id="alice")
    transcript.refused("handing his over to her", ROW_SECURITY, bob.run, handed_over)
    transcript.refused("emptying the table", PERMISSION_DENIED, bob.run, text("TRUNCATE todos"))
    # Either would wait on the pooled connection, or in the database, for whoever comes next.
    trap = text("CREATE TEMPORARY TABLE todos AS SELECT * FROM todos")
    transcript.refused("hiding it behind a temporary one", NO_TEMPORARY, bob.run, trap)
    trap = text("CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql RETURN 'bob'")
    transcript.refused("putting a function before Postgres' own", NO_FUNCTION, bob.run, trap)
    transcript.equal("alice still has", ["buy milk", "call mum"], alice.tasks)


def try_tokens(transcript: Transcript, alice: Client, bob: Client, issuer: Issuer) -> None:
    transcript.chapter("Tokens that aren't believed")
    header, _, signature = alice.token.split(".")
    _, claims_of_bob, _ = bob.token.split(".")
    forged = InvalidToken, "hasn't signed it"
    namesake = replace(Key.generate(), kid=issuer.key().kid)
    with Issuer(issuer.project_id) as other_issuer:
        for sentence, token, refusal in (
            ("signed by another key of the same name", issuer.token("alice", key=namesake), forged),
            ("alice's, with the claims of bob", f"{header}.{claims_of_bob}.{signature}", forged),
            ("not signed", issuer.token("alice", algorithm="none"), (InvalidToken, "algorithm")),
            ("of yesterday", issuer.token("alice", issued_at=time.time() - 86400), (ExpiredToken, "expired")),
            ("for another project", issuer.token("alice", audience="other"), (InvalidToken, "audience")),
            ("of another issuer", other_issuer.token("alice"), (InvalidToken, "issuer")),
            ("garbage", "open sesame", (InvalidToken, "JWT")),
        ):
            transcript.refused(sentence, refusal, Client(alice.sessions, token).tasks)


def try_without(
    transcript: Transcript, sessions: sessionmaker[Session], engine: Engine, alice: Client
) -> None:
    def without_token() -> object:
        with sessions() as session:
            return session.scalars(select(Todo.task)).all()

    def as_anonymous() -> object:
        with sessions() as session:
            identify(session, Caller.anonymous())
            return session.scalars(select(Todo.task)).all()

    def past_the_sessions() -> object:
        with engine.connect() as connection:
            return connection.scalars(select(Todo.task)).all()

    def bound_and_after() -> list[str]:
        # As claims or, where the database verifies them, as a token.
        state = text(
            "SELECT pg_backend_pid(), current_user, concat(current_setting('request.jwt.claims', true), "
            "current_setting('pg_session_jwt.jwt', true))"
        )
        with sessions(token=alice.token) as session:
            backend, role, claims = session.execute(state).one()
        with engine.connect() as connection:
            backend_after, role_after, claims_after = connection.execute(state).one()
        assert backend == backend_after, "the pool gave another connection"
        left = "claims" if claims_after else repr(claims_after)
        return [f"{role} {'with' if claims else 'without'} claims", f"{role_after} with {left}"]

    transcript.chapter("Nobody, and what is left on a connection")
    transcript.refused("a session without a token", (CallerRequired, "no caller"), without_token)
    # No policy of the model is for the role anonymous: it has no privilege either.
    transcript.refused("anonymous", PERMISSION_DENIED, as_anonymous)
    states = ["authenticated with claims", f"{engine.url.username} with ''"]
    transcript.equal("one connection, for alice and after", states, bound_and_after)
    transcript.refused("reading on it, for nobody", PERMISSION_DENIED, past_the_sessions)


def look_behind(transcript: Transcript, database: Database, issuer: Issuer) -> None:
    transcript.chapter("Behind the scenes")
    count = sql.SQL("SELECT count(*) FROM todos")
    transcript.equal("todos in the table, of everybody", 4, database.value, count)
    transcript.equal("times that the issuer was asked for its keys", 1, lambda: issuer.fetches)


def migrate_back(transcript: Transcript, database: Database, before: set[str], migrated: set[str]) -> None:
    transcript.chapter("And back")
    # The migration leaves a role that has members; this one was made by hand, and so it goes by hand.
    drop_role(database.superuser, f"app{database.suffix}")
    database.alembic("downgrade", "base")
    transcript.equal("what it left behind", [], database.differences, before)
    if not database.suffix:
        roles = sql.SQL("SELECT count(*) FROM pg_roles WHERE rolname IN ('authenticated', 'anonymous')")
        transcript.equal("roles that it left behind", 0, database.value, roles)
    database.alembic("upgrade", "head")
    transcript.equal("what differs from the first time", [], database.differences, migrated)


# Who and what takes part


@dataclass(frozen=True, slots=True)
class Client:
    """Whoever calls the app with this token."""

    sessions: sessionmaker[Session]
    token: str = field(repr=False)

    def add(self, *tasks: str) -> list[str]:
        """Write todos; what there is afterwards, read in a further transaction of the session."""
        with self.sessions(token=self.token) as session:
            session.add_all(Todo(task=task) for task in tasks)
            session.commit()
            return list(session.scalars(select(Todo.task).order_by(Todo.id)))

    def tasks(self, *conditions: Any) -> list[str]:
        with self.sessions(token=self.token) as session:
            return list(session.scalars(select(Todo.task).where(*conditions).order_by(Todo.id)))

    def get(self, todo_id: int) -> Todo | None:
        with self.sessions(token=self.token) as session:
            return session.get(Todo, todo_id)

    def id_of(self, task: str) -> int:
        with self.sessions(token=self.token) as session:
            return session.scalars(select(Todo.id).where(Todo.task == task)).one()

    def run(self, statement: Executable) -> str:
        """Execute and commit it; how many rows it affected."""
        with self.sessions(token=self.token) as session, session.begin():
            result = session.execute(statement)
            assert isinstance(result, CursorResult)
            return f"{result.rowcount} row{'' if result.rowcount == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
