"""Who may log in for the callers, and the two ways to do so."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify, service_session
from sqla_rls.exc import BindingError, TransactionRefused, UnsafeRole
from sqla_rls.testing.postgres import Server
from tests.support.sessions import ANYTHING, CALLER, TASKS, statements_of
from tests.support.suite import table
from tests.tables.unsafe import UNSAFE, Unsafe

pytestmark = pytest.mark.every_postgres


@pytest.fixture
def role(admin: Engine) -> Iterator[str]:
    """A login role of the test's own, that may do what ``app`` may; roles named like it go with it."""
    name = f"login {uuid4().hex}"
    with admin.begin() as connection:
        connection.execute(text(f"""CREATE ROLE "{name}" LOGIN NOINHERIT PASSWORD 'secret'"""))
        connection.execute(text(f'GRANT authenticated, anonymous TO "{name}"'))
    yield name
    with admin.begin() as connection:
        connection.execute(text("ALTER SCHEMA public OWNER TO pg_database_owner"))
        for (one,) in connection.execute(
            text(f"SELECT rolname FROM pg_roles WHERE rolname ^@ '{name}'")
        ).all():
            connection.execute(text(f'REASSIGN OWNED BY "{one}" TO CURRENT_USER'))
            connection.execute(text(f'DROP OWNED BY "{one}"'))
            connection.execute(text(f'DROP ROLE "{one}"'))


Login = Callable[..., sessionmaker[Session]]


@pytest.fixture
def login(url: URL) -> Iterator[Login]:
    """``login(role, …)``: a factory of sessions that log in as that role."""
    engines = []

    def factory(
        role: str, *, check_login_role: bool = True, member_of: Mapping[str, Collection[str]] | None = None
    ) -> sessionmaker[Session]:
        engines.append(create_engine(url.set(username=role, password="secret"), poolclass=NullPool))
        maker = sessionmaker(engines[-1])
        enforce_row_security(
            maker, check_login_role=check_login_role, options=BindingOptions(member_of=member_of or {})
        )
        return maker

    yield factory
    for engine in engines:
        engine.dispose()


def run(admin: Engine, *statements: str) -> None:
    with admin.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@table("unsafe", UNSAFE, ids=lambda unsafe: unsafe.name)
def test_a_role_for_which_row_security_does_not_hold_is_refused_until_it_is_cured(
    server: Server, admin: Engine, login: Login, role: str, unsafe: Unsafe, todos: None, alice: Caller
) -> None:
    def filled(sql: str) -> str:
        return sql.replace("{role}", role).replace("{database}", f"{admin.url.database}")

    if not unsafe.since <= server.version <= unsafe.until:
        pytest.skip(f"it opens nothing on PostgreSQL {server.version}")
    run(admin, *map(filled, unsafe.sql))
    with admin.connect() as connection:
        # What belongs to an extension, its owner alone can drop.
        extension = connection.scalar(text("SELECT true FROM pg_extension WHERE extname = 'pg_session_jwt'"))
    if unsafe.attack and not (extension and "auth." in unsafe.attack[0]):
        with login(role, check_login_role=False)() as session:
            identify(session, alice)
            *statements, last = map(filled, ("RESET ROLE", *unsafe.attack))
            for statement in statements:
                session.execute(text(statement))
            assert "bob's" in session.scalars(text(last)).all()
            session.rollback()
    maker = login(role)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(UnsafeRole, match=re.escape(filled(unsafe.why))):
            session.scalars(TASKS)
        with pytest.raises(TransactionRefused):
            session.scalars(TASKS)
        session.rollback()
        with pytest.raises(UnsafeRole) as refusal:
            session.scalars(TASKS)
    (hint,) = re.findall(r"run as a superuser: (.*)\. Set check_login_role=False", str(refusal.value))
    assert hint == filled(unsafe.hint)
    run(admin, hint)
    with maker() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


def test_a_role_may_own_what_no_protected_table_uses(
    admin: Engine, login: Login, role: str, todos: None, alice: Caller
) -> None:
    run(
        admin,
        f'CREATE SCHEMA "{role}" AUTHORIZATION "{role}"',
        f'SET LOCAL search_path = "{role}", public',
        "CREATE TYPE kind AS ENUM ('a', 'b')",
        "CREATE DOMAIN short AS text CHECK (length(VALUE) < 9)",
        "CREATE FUNCTION folded(text) RETURNS short IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'",
        """CREATE TABLE jobs (id serial PRIMARY KEY, todo bigint REFERENCES public.todos, kind kind,
                              parent int REFERENCES jobs, name text UNIQUE CHECK (name <> ''))""",
        "CREATE TABLE more_jobs () INHERITS (jobs)",
        "CREATE VIEW all_jobs AS SELECT j.*, t.task FROM jobs AS j JOIN public.todos AS t ON t.id = j.todo",
        "CREATE MATERIALIZED VIEW some_jobs AS SELECT * FROM all_jobs",
        "CREATE FUNCTION job() RETURNS jobs STABLE BEGIN ATOMIC SELECT * FROM jobs; END",
        "CREATE SEQUENCE numbers",
        "ALTER TABLE public.todos ADD COLUMN number bigint DEFAULT nextval('numbers')",
        "ALTER TABLE public.todos ADD COLUMN job int REFERENCES jobs ON DELETE CASCADE",
        *(
            f'ALTER {what} OWNER TO "{role}"'
            for what in ("TYPE kind", "DOMAIN short", "FUNCTION folded", "TABLE jobs", "TABLE more_jobs")
        ),
        *(f'ALTER {what} OWNER TO "{role}"' for what in ("VIEW all_jobs", "FUNCTION job()")),
        f'ALTER MATERIALIZED VIEW some_jobs OWNER TO "{role}"',
    )
    with login(role)() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_from_16_on_createrole_alone_grants_no_role(
    server: Server, admin: Engine, login: Login, role: str, todos: None, alice: Caller
) -> None:
    if server.version < 16:
        pytest.skip("before, it grants any role")
    run(admin, f'ALTER ROLE "{role}" CREATEROLE', f'CREATE ROLE "{role} owner"')
    with login(role)() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
        session.execute(text("RESET ROLE"))
        with pytest.raises(DBAPIError, match="permission denied to grant role"):
            session.execute(text(f'GRANT "{role} owner" TO "{role}"'))


def test_the_postgres_superuser_is_told_which_role_to_make(server: Server, url: URL, alice: Caller) -> None:
    engine = create_engine(server.url(url.database), poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(UnsafeRole, match="CREATE ROLE app LOGIN NOINHERIT; GRANT authenticated TO app"):
            session.execute(ANYTHING)


@pytest.fixture
def worker(admin: Engine, role: str, todos: None) -> str:
    """A role that reads everything by its policy, and that the login role may take on."""
    worker = f"{role} worker"
    run(
        admin,
        f'CREATE ROLE "{worker}"',
        f'GRANT "{worker}" TO "{role}"',
        f'GRANT SELECT ON todos TO "{worker}"',
        f'CREATE POLICY worker ON todos FOR SELECT TO "{worker}" USING (true)',
    )
    return worker


@pytest.mark.exhaustive
def test_callers_whose_role_is_a_member_of_another_one_of_policies_are_refused(
    admin: Engine, login: Login, role: str, worker: str, alice: Caller
) -> None:
    run(admin, f'GRANT "{worker}" TO authenticated')
    with login(role, check_login_role=False)() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's", "bob's"]
    hint = f'REVOKE "{worker}" FROM authenticated'
    maker = login(role)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(
            UnsafeRole, match=f"'authenticated' has the policies of role '{worker}'.*: {hint};"
        ):
            session.scalars(TASKS)
    with maker() as session:
        identify(session, Caller.anonymous())
        session.execute(ANYTHING)
    run(admin, hint)
    with maker() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


def test_a_membership_that_is_named_is_meant_so(
    admin: Engine, login: Login, role: str, worker: str, alice: Caller
) -> None:
    run(admin, f'GRANT "{worker}" TO authenticated, anonymous')
    with login(role, member_of={"authenticated": [worker]})() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's", "bob's"]
        session.rollback()
        identify(session, Caller.anonymous())
        with pytest.raises(UnsafeRole, match="'anonymous' has the policies"):
            session.execute(ANYTHING)


@pytest.mark.exhaustive
def test_a_service_may_take_on_a_role_that_the_login_role_was_granted(
    login: Login, role: str, worker: str, alice: Caller
) -> None:
    maker = login(role)
    with service_session(maker, reason="report", role=worker) as session:
        assert session.scalars(TASKS).all() == ["alice's", "bob's"]
    with maker() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_callers_with_a_role_of_their_own_may_be_members_of_the_ready_made_ones(
    admin: Engine, login: Login, role: str, todos: None
) -> None:
    editor = f"{role} editor"
    run(
        admin,
        f'CREATE ROLE "{editor}"',
        f'GRANT "{editor}" TO "{role}"',
        f'GRANT authenticated TO "{editor}"',
    )
    with login(role)() as session:
        identify(session, Caller(role=editor, subject="alice"))
        assert session.scalars(TASKS).all() == ["alice's"]


def test_each_role_is_looked_at_once_by_pool(pool: Engine, alice: Caller, bob: Caller) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker)
    sent = statements_of(pool)
    for _ in range(3):
        for caller in (alice, bob, Caller.anonymous()):
            with maker() as session:
                identify(session, caller)
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
@pytest.mark.exhaustive
def test_authenticated_itself_may_log_in(
    as_authenticated: URL, todos: None, alice: Caller, bob: Caller, set_role: bool
) -> None:
    engine = create_engine(as_authenticated, poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(set_role=set_role))
    for caller in (alice, bob):
        with maker() as session:
            identify(session, caller)
            assert session.execute(CALLER).one() == ("authenticated", caller.subject)
            assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]
    with maker() as session:
        identify(session, Caller.anonymous())
        with pytest.raises(BindingError, match="log in as that role" if not set_role else "may not SET ROLE"):
            session.execute(ANYTHING)


@pytest.mark.exhaustive
@table("driver", ["psycopg", "asyncpg"])
@table("set_role", [True, False])
async def test_authenticated_itself_may_log_in_under_asyncio(
    runner: object, as_authenticated: URL, todos: None, alice: Caller, driver: str, set_role: bool
) -> None:
    engine = create_async_engine(as_authenticated.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
    maker: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(set_role=set_role))
    async with maker() as session:
        identify(session, alice)
        assert (await session.scalars(TASKS)).all() == ["alice's"]
    async with maker() as session:
        identify(session, Caller.anonymous())
        with pytest.raises(BindingError):
            await session.execute(ANYTHING)
    await engine.dispose()
