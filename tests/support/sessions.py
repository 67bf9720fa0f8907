"""What the tests of sessions share: tables that are protected, and who may log in to reach them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from _pytest.mark import ParameterSet
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    ForeignKey,
    Text,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy import Identity as Generated
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls import (
    BindingOptions,
    Caller,
    Policy,
    Verifier,
    anonymous,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    enforce_row_security,
    identify,
    provider,
)
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.roles import DropRole
from sqla_rls.driver.base import Transport
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.testing.postgres import Server
from tests.support.project import Project
from tests.support.signing import Signed
from tests.support.stand_in import can_have_stand_in, has_extension, server_with_stand_in
from tests.support.suite import (
    at_hand,
    find_installation,
    missing,
    on_servers_of_kinds,
    parametrize,
    transports,
)


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todos"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)
    steps: Mapped[list[Step]] = relationship(order_by="Step.id", passive_deletes="all")

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class Step(Base):
    __tablename__ = "steps"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    todo_id: Mapped[int] = mapped_column(ForeignKey(Todo.id, ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id())
    what: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class Document(Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(server_default=auth.uid())
    title: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class Score(Base):
    __tablename__ = "scores"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    user_id: Mapped[int] = mapped_column()
    points: Mapped[int]

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class Notice(Base):
    """For everybody to read."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    message: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Policy("all-read", "SELECT", [anonymous, authenticated], using=True),
        Policy("none-write", "INSERT", [anonymous], with_check=False),
    )


def on_signing_servers(*others: str, exhaustive: Collection[str] = ()) -> list[ParameterSet]:
    """What verifies a signature, and the version of the server that it is part of.

    Args:
        others: as a server that lacks pg_session_jwt has them.
        exhaustive: those that ``make test`` leaves out.
    """

    def kinds(version: int) -> list[str]:
        found = at_hand().get(version)
        return [*(["pg_session_jwt"] if found and has_extension(found) else []), "stand-in", *others]

    return on_servers_of_kinds(kinds, exhaustive=exhaustive)


@pytest.fixture(scope="session")
def signing_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Offers pg_session_jwt: the extension itself, or the stand-in."""
    with start_signing_server(*request.param) as server:
        yield server


@contextmanager
def start_signing_server(
    name: str, version: int, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """One with that extension, or for the functions that do without it."""
    installation = find_installation(version)
    if name != "stand-in":
        with Server.start(installation, settings=settings) as server:
            yield server
        return
    if not can_have_stand_in(installation):
        missing("stand-in", f"apt install gcc libc6-dev libssl-dev postgresql-server-dev-{version}")
    with server_with_stand_in(installation, settings) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, database: URL) -> Project:
    project = Project(tmp_path / "migrations", database)
    # Roles outlive the databases of earlier tests.
    with project.engine.begin() as connection:
        for role in ("authenticated", "anonymous", "reporting"):
            connection.execute(DropRole(role))
    return project


#: The role and the subject that a transaction runs as: of the claims, or of the token, as they were bound.
CALLER = text("""
SELECT current_user::text, coalesce(
         nullif(current_setting('request.jwt.claims', true), '')::json,
         convert_from(decode(rpad(payload, (length(payload) + 3) / 4 * 4, '='), 'base64'), 'UTF8')::json
       ) ->> 'sub'
  FROM nullif(current_setting('pg_session_jwt.jwt', true), '') AS token,
       translate(split_part(token, '.', 2), '-_', '+/') AS payload
""")
#: That of a transaction to which nothing is bound.
NOBODY = ("app", None)
#: That of a transaction of the caller alice.
ALICE = ("authenticated", "alice")
#: The process of the server.
BACKEND = text("SELECT pg_backend_pid()")

TASKS = select(Todo.task).order_by(Todo.id)
#: Some providers list a person's groups, by their uuids: here 80 KB of them.
GROUPS = [str(UUID(int=number)) for number in range(2000)]
ALICE_OF_MANY_GROUPS = Caller(role="authenticated", subject="alice", claims={"groups": GROUPS})
#: What anybody may do, the login role included.
ANYTHING = text("SELECT 1")
Sessions: TypeAlias = Callable[[Caller], Session]


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """A database with the tables on a server with the login roles."""
    with database_with_tables(server) as name:
        yield name


@contextmanager
def database_with_tables(server: Server, *statements: ExecutableDDLElement) -> Iterator[str]:
    """One with the login roles beside it, made after *statements*; a copy of it has the rows of ``todos``."""
    admin = create_engine(server.url(), poolclass=NullPool)
    name = server.create_database()
    owner = create_engine(server.url(name), poolclass=NullPool)
    with owner.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    Base.metadata.create_all(owner)
    with admin.begin() as connection:
        # Roles belong to the server, which others may be testing on as well.
        connection.execute(text("SELECT pg_advisory_xact_lock(20260101)"))
        for role, inherit in (("app", False), ("authenticated_login", True)):
            attributes = f"LOGIN PASSWORD '{role}' {'INHERIT' if inherit else 'NOINHERIT'}"
            if not connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :name"), {"name": role}):
                connection.execute(text(f"CREATE ROLE {role} {attributes}"))
            option = f"WITH INHERIT {inherit}, SET TRUE" if server.version >= 16 else ""
            connection.execute(text(f"GRANT authenticated, anonymous TO {role} {option}"))
    filled = server.create_database(_filled(name), template=name)
    with Session(create_engine(server.url(filled), poolclass=NullPool)) as session:
        for subject in ("alice", "bob"):
            step = Step(user_id=subject, what=f"{subject}'s step")
            session.add(Todo(user_id=subject, task=f"{subject}'s", steps=[step]))
        session.commit()
    yield name
    server.drop_database(filled)
    server.drop_database(name)


def _filled(template: str) -> str:
    return f"{template}_filled"


@pytest.fixture
def url(request: pytest.FixtureRequest, server: Server, template: str) -> Iterator[URL]:
    """Of a database of its own, with the tables; logs in as ``app``, which may do nothing itself."""
    is_filled = "todos" in request.fixturenames
    name = server.create_database(template=_filled(template) if is_filled else template)
    yield server.url(name, user="app", password="app")
    server.drop_database(name)


@pytest.fixture
def admin(server: Server, url: URL) -> Iterator[Engine]:
    """Sees and may do everything in that database."""
    engine = create_engine(server.url(url.database), poolclass=NullPool)
    yield engine
    engine.dispose()


#: The rows that fixture ``todos`` makes.
UNTOUCHED = [("alice", "alice's"), ("bob", "bob's")]


@pytest.fixture
def todos(url: URL) -> None:
    """One of Alice's and one of Bob's, with a step each: *url* copies them."""


@pytest.fixture(scope="session")
def signed_template(server: Server, template: str) -> Iterator[tuple[str, str]]:
    """The name of a database that verifies callers, and its key; *template* has made the login role."""
    name = server.create_database()
    admin = create_engine(server.url(name), poolclass=NullPool)
    with admin.begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
        key = rotate_signing_key(connection)
    Base.metadata.create_all(admin)
    with Session(admin) as session:
        session.add_all([Todo(user_id=subject, task=f"{subject}'s") for subject in ("alice", "bob")])
        session.commit()
    yield name, key
    server.drop_database(name)


@pytest.fixture
def signed(server: Server, signed_template: tuple[str, str]) -> Iterator[Signed]:
    """Of one's own, with the tables, and a todo each of Alice and Bob."""
    template, key = signed_template
    name = server.create_database(template=template)
    yield Signed(
        key,
        create_engine(server.url(name), poolclass=NullPool),
        create_engine(server.url(name, user="app", password="app"), poolclass=NullPool),
    )
    server.drop_database(name)


@pytest.fixture
def pool(url: URL) -> Iterator[Engine]:
    """Of one connection, which callers get in turns."""
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    engine.dispose()


#: How a binding travels, by psycopg.
TRANSPORTS: dict[str, Transport] = {
    "pipeline": "pipeline",
    "with_begin": "with_begin",
    "statement": "statement",
}
#: The same, by each driver for asyncio.
DRIVERS_AND_TRANSPORTS: dict[str, tuple[str, Transport]] = {
    "psycopg-with_begin": ("psycopg", "with_begin"),
    "psycopg-pipeline": ("psycopg", "pipeline"),
    "psycopg-statement": ("psycopg", "statement"),
    "asyncpg-with_begin": ("asyncpg", "with_begin"),
    "asyncpg-pipeline": ("asyncpg", "pipeline"),
    "asyncpg-statement": ("asyncpg", "statement"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, "signing_server", on_signing_servers())
    parametrize(metafunc, "transport", transports(TRANSPORTS, ["pipeline"]))
    parametrize(
        metafunc,
        "driver_and_transport",
        transports(DRIVERS_AND_TRANSPORTS, ["psycopg-pipeline", "asyncpg-pipeline"]),
    )


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    """How a binding travels."""
    transport: Transport = request.param
    return transport


def by_transports(*names: Transport) -> pytest.MarkDecorator:
    """For a test that only some ways have anything to do with."""
    params = transports(
        {transport: transport for transport in names},
        ["pipeline"] if "pipeline" in names else names,
    )
    return pytest.mark.parametrize("transport", params, indirect=True)


#: Where bindings are counted, as the statements that they are then.
by_statement = pytest.mark.parametrize("transport", ["statement"], indirect=True)


@pytest.fixture
def maker(pool: Engine, transport: Transport) -> sessionmaker[Session]:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    return maker


@pytest.fixture
def sessions(maker: sessionmaker[Session]) -> Sessions:
    """``sessions(alice)``: a session that runs as Alice."""

    def open_session(caller: Caller) -> Session:
        session = maker()
        identify(session, caller)
        return session

    return open_session


def statements_of(engine: Engine | Connection) -> list[str]:
    """What *engine* sends from now on, BEGIN, COMMIT and ROLLBACK apart."""
    sent: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    return sent


def bindings(statements: list[str]) -> int:
    """How many of *statements* bind a caller."""
    return sum("set_config" in statement for statement in statements)


def assert_refused(session: Session, error: type[Exception], match: str | None = None) -> BaseException:
    """Nobody reads anything through *session*, because of *error*, which must be of no help to go on."""
    done: list[str] = []

    @event.listens_for(session.get_bind(), "after_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        done.append(statement)

    with pytest.raises(error, match=match) as refusal:
        session.execute(select(Todo.task))
    with pytest.raises(SQLAlchemyError):
        session.execute(ANYTHING)
    assert not any("todos" in statement for statement in done)
    return refusal.value


def all_todos(admin: Engine) -> list[tuple[str, str]]:
    """Whose there are, and what they say."""
    with admin.connect() as connection:
        rows = connection.execute(select(Todo.user_id, Todo.task).order_by(Todo.id))
        return [(user_id, task) for user_id, task in rows]


def kill(admin: Engine, backend: int | None) -> None:
    with admin.connect() as connection:
        assert connection.scalar(select(func.pg_terminate_backend(backend, 5000)))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def verifier_of(issuer: Issuer, *, leeway: float = 0.0, role: str = "authenticated") -> Verifier:
    """A verifier that asks *issuer* for its keys, and knows none yet."""
    base_url = issuer.issuer.removesuffix(f"/api/v1/projects/{issuer.project_id}")
    return Verifier(provider.stack_auth(issuer.project_id, base_url=base_url, role=role), leeway=leeway)


def _with_payload_of_another(issuer: Issuer) -> str:
    (header, _, signature), (_, payload, _) = (issuer.token(name).split(".") for name in ("alice", "bob"))
    return f"{header}.{payload}.{signature}"


#: By what is wrong with them.
BAD_TOKENS: dict[str, Callable[[Issuer], Any]] = {
    "empty": lambda issuer: "",
    "garbage": lambda issuer: "garbage",
    "bytes": lambda issuer: issuer.token("alice").encode(),
    "with its scheme": lambda issuer: f"Bearer {issuer.token('alice')}",
    "expired": lambda issuer: issuer.token("alice", expires_in=-60),
    "without end": lambda issuer: issuer.token("alice", expires_in=None),
    "of nobody": lambda issuer: issuer.token(None),
    "of another issuer": lambda issuer: issuer.token("alice", issuer="https://example.com"),
    "for another audience": lambda issuer: issuer.token("alice", audience="another"),
    "unsigned": lambda issuer: issuer.token("alice", algorithm="none"),
    "by a shared secret": lambda issuer: issuer.token("alice", algorithm="HS256", key="x" * 32),
    "by another key": lambda issuer: issuer.token("alice", key=Key.generate()),
    "with another's payload": _with_payload_of_another,
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of a test that is a coroutine, and of its fixtures."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in the event loop of fixture ``runner``, which it or a fixture takes."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = pyfuncitem.funcargs
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments["runner"].run(pyfuncitem.obj(**{name: arguments[name] for name in names}))
    return True


@pytest.fixture
def driver_and_transport(request: pytest.FixtureRequest) -> tuple[str, Transport]:
    pair: tuple[str, Transport] = request.param
    return pair


@pytest.fixture
def async_transport(driver_and_transport: tuple[str, Transport]) -> Transport:
    return driver_and_transport[1]


@pytest.fixture
def async_url(driver_and_transport: tuple[str, Transport], url: URL) -> URL:
    driver = driver_and_transport[0]
    # asyncpg complains, on stderr, when it is cancelled while it asks for TLS.
    query = {"ssl": "disable"} if driver == "asyncpg" else {}
    return url.set(drivername=f"postgresql+{driver}").update_query_dict(query)


@pytest.fixture
def async_pool(async_url: URL, runner: asyncio.Runner) -> Iterator[AsyncEngine]:
    """Of one connection, which callers get in turns."""
    engine = create_async_engine(async_url, pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    runner.run(engine.dispose())
