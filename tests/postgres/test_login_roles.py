"""Who may log in for the callers, and the two ways to do so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import ANONYMOUS, Identity, enforce_row_security, identify
from sqla_rls.exc import BindingError, TransactionRefused, UnsafeRole
from sqla_rls.testing.postgres import Server

from .conftest import ANYTHING, CALLER, TASKS, statements_of


@pytest.fixture
def role(admin: Engine) -> Iterator[str]:
    """A login role of the test's own, that may do what ``app`` may."""
    name = f"login_{uuid4().hex}"
    with admin.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD 'secret'"))
        connection.execute(text(f"GRANT authenticated, anonymous TO {name}"))
    yield name
    with admin.begin() as connection:
        connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


Login = Callable[..., sessionmaker[Session]]


@pytest.fixture
def login(url: URL) -> Iterator[Login]:
    """``login(role, …)``: a factory of sessions that log in as that role."""
    engines = []

    def factory(role: str, *, check_login_role: bool = True) -> sessionmaker[Session]:
        engines.append(create_engine(url.set(username=role, password="secret"), poolclass=NullPool))
        maker = sessionmaker(engines[-1])
        enforce_row_security(maker, check_login_role=check_login_role)
        return maker

    yield factory
    for engine in engines:
        engine.dispose()


OWNER_OF_TODOS = "ALTER TABLE todos OWNER TO {role}"

UNSAFE = {
    "superuser": (["ALTER ROLE {role} SUPERUSER"], "is a superuser"),
    "bypassrls": (["ALTER ROLE {role} BYPASSRLS"], "has BYPASSRLS"),
    "owner": ([OWNER_OF_TODOS], "owns table todos"),
    "member of an owner": (
        [
            "CREATE ROLE {role}_owner",
            "GRANT {role}_owner TO {role}",
            "ALTER TABLE todos OWNER TO {role}_owner",
        ],
        "by 'login_.*_owner', owns table todos",
    ),
    "member of a member": (
        [
            "CREATE ROLE {role}_boss BYPASSRLS",
            "CREATE ROLE {role}_team",
            "GRANT {role}_boss TO {role}_team",
            "GRANT {role}_team TO {role}",
        ],
        "by 'login_.*_boss', has BYPASSRLS",
    ),
}


@pytest.fixture(params=list(UNSAFE.values()), ids=list(UNSAFE))
def unsafe(request: pytest.FixtureRequest, admin: Engine, role: str) -> Iterator[str]:
    """What is wrong with the role."""
    statements, why = request.param
    with admin.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.format(role=role)))
    yield why
    with admin.begin() as connection:
        connection.execute(text("ALTER TABLE todos OWNER TO CURRENT_USER"))
        for made in ("owner", "boss", "team"):
            connection.execute(text(f"DROP ROLE IF EXISTS {role}_{made}"))


def test_a_login_role_that_row_security_does_not_bind_is_refused(
    login: Login, role: str, unsafe: str, todos: None, alice: Identity
) -> None:
    with login(role)() as session:
        identify(session, alice)
        for _ in range(2):
            with pytest.raises(UnsafeRole, match=unsafe):
                session.scalars(TASKS)
            with pytest.raises(TransactionRefused):
                session.scalars(TASKS)
            session.rollback()
    with login(role, check_login_role=False)() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


def test_a_role_to_switch_to_is_looked_at_as_well(
    admin: Engine, login: Login, role: str, todos: None
) -> None:
    above = f"{role}_above"
    with admin.begin() as connection:
        connection.execute(text(f"CREATE ROLE {above} BYPASSRLS"))
        connection.execute(text(f"GRANT {above} TO authenticated"))
        connection.execute(text(f"GRANT {above} TO {role}"))
    try:
        with login(role)() as session:
            identify(session, Identity(role=above, subject="alice"))
            with pytest.raises(UnsafeRole, match="has BYPASSRLS"):
                session.execute(ANYTHING)
    finally:
        with admin.begin() as connection:
            connection.execute(text(f"DROP ROLE {above}"))


def test_the_owner_of_tables_that_force_row_security_may_log_in(
    admin: Engine, login: Login, role: str, todos: None, alice: Identity
) -> None:
    with admin.begin() as connection:
        connection.execute(text(OWNER_OF_TODOS.format(role=role)))
        connection.execute(text("ALTER TABLE todos FORCE ROW LEVEL SECURITY"))
    with login(role)() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


def test_each_role_is_looked_at_once_by_pool(pool: Engine, alice: Identity, bob: Identity) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker)
    sent = statements_of(pool)
    for _ in range(3):
        for identity in (alice, bob, ANONYMOUS):
            with maker() as session:
                identify(session, identity)
                session.execute(ANYTHING)
    assert sum("pg_roles" in statement for statement in sent) == 2
    with maker(bind=pool.execution_options(isolation_level="SERIALIZABLE")) as session:
        identify(session, alice)
        session.execute(ANYTHING)
    assert sum("pg_roles" in statement for statement in sent) == 2


# Logged in as ``authenticated`` itself, as DATABASE_AUTHENTICATED_URL may be


@pytest.fixture
def as_authenticated(server: Server, url: URL, admin: Engine) -> Iterator[URL]:
    """``authenticated`` belongs to the server, and others test on it: it may log in for a moment only."""
    with admin.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(20260102)"))
        connection.execute(text("ALTER ROLE authenticated LOGIN PASSWORD 'secret'"))
        connection.commit()
        yield url.set(username="authenticated", password="secret")
        connection.execute(text("ALTER ROLE authenticated NOLOGIN PASSWORD NULL"))
        connection.commit()


@pytest.mark.parametrize("set_role", [True, False])
def test_authenticated_itself_may_log_in(
    as_authenticated: URL, todos: None, alice: Identity, bob: Identity, set_role: bool
) -> None:
    engine = create_engine(as_authenticated, poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker, set_role=set_role)
    for identity in (alice, bob):
        with maker() as session:
            identify(session, identity)
            assert session.execute(CALLER).one() == ("authenticated", identity.subject)
            assert session.scalars(TASKS).all() == [f"{identity.subject}'s"]
    with maker() as session:
        identify(session, ANONYMOUS)
        with pytest.raises(BindingError, match="log in as that role" if not set_role else "may not SET ROLE"):
            session.execute(ANYTHING)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("set_role", [True, False])
async def test_authenticated_itself_may_log_in_under_asyncio(
    runner: object, as_authenticated: URL, todos: None, alice: Identity, driver: str, set_role: bool
) -> None:
    engine = create_async_engine(as_authenticated.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
    maker: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
    enforce_row_security(maker, set_role=set_role)
    async with maker() as session:
        identify(session, alice)
        assert (await session.scalars(TASKS)).all() == ["alice's"]
    async with maker() as session:
        identify(session, ANONYMOUS)
        with pytest.raises(BindingError):
            await session.execute(ANYTHING)
    await engine.dispose()
