"""Sessions on a project of Supabase: people see their own rows, by the tokens of Supabase Auth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jwt
import pytest
from sqlalchemy import Engine, MetaData, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import (
    BindingOptions,
    Caller,
    Verifier,
    declare_roles,
    enforce_row_security,
    identify,
    provider,
    service_session,
    supabase,
)
from sqla_rls.exc import BindingError, InvalidToken, UnsafeRole
from sqla_rls.testing.issuer import Issuer
from tests.support.project import Project
from tests.support.supabase import ALICE, BOB, Supabase, models

PROJECT_URL = "https://abcdefghijklmnopqrst.supabase.co"
TASKS = text("SELECT task FROM todos ORDER BY task")
NOTICES = text("SELECT message FROM notices ORDER BY message")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer(imitate=provider.supabase(PROJECT_URL)) as found:
        yield found


def token(issuer: Issuer, subject: str, **claims: Any) -> str:
    session = {"session_id": subject, "aal": "aal1", "is_anonymous": False, "app_metadata": {}}
    return issuer.token(subject, claims={"role": "authenticated", **session, **claims})


@pytest.fixture(scope="module")
def filled(on_supabase: Supabase, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project with the tables, a login role, and rows of two people."""
    name = on_supabase.create_project()
    project = Project(tmp_path_factory.mktemp("filled") / "migrations", on_supabase.url(name))
    metadata = models()
    declare_roles(metadata, supabase.login_role("app"))
    project.migrate(metadata)
    with on_supabase.admin(name).begin() as connection:
        for person, word in ((ALICE, "alice's"), (BOB, "bob's")):
            connection.execute(text("INSERT INTO auth.users (id) VALUES (:id)"), {"id": person})
            row = {"id": person, "task": word}
            connection.execute(text("INSERT INTO todos (user_id, task) VALUES (:id, :task)"), row)
        connection.execute(
            text("INSERT INTO notices (message, public) VALUES ('open', 'yes'), ('closed', 'no')")
        )
        connection.execute(
            text("INSERT INTO storage.buckets (id, name) VALUES ('avatars', 'a'), ('private', 'p')")
        )
        connection.execute(
            text(
                "INSERT INTO storage.objects (bucket_id, name, owner_id) "
                "VALUES ('avatars', 'a.png', :alice), ('private', 'b.png', :alice)"
            ),
            {"alice": ALICE},
        )
    return name


Factory: TypeAlias = Callable[..., sessionmaker[Session]]


@pytest.fixture
def factory(on_supabase: Supabase, filled: str, issuer: Issuer) -> Iterator[Factory]:
    """Makes factories of sessions that share one connection."""
    engines: list[Engine] = []

    def made(user: str = "app", **options: Any) -> sessionmaker[Session]:
        engines.append(create_engine(on_supabase.url(filled, user), pool_size=1))
        sessions = sessionmaker(engines[-1])
        enforce_row_security(sessions, verifier=Verifier(issuer.provider), **options)
        return sessions

    yield made
    for engine in engines:
        engine.dispose()


ON_SUPABASE = [
    BindingOptions(),
    pytest.param(BindingOptions(transport="with_begin"), marks=pytest.mark.exhaustive),
    pytest.param(BindingOptions(transport="statement"), marks=pytest.mark.exhaustive),
    pytest.param(BindingOptions(signing="off", reset="none"), marks=pytest.mark.exhaustive),
    pytest.param(BindingOptions(reset="all"), marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("options", ON_SUPABASE)
def test_people_see_their_own_rows_only(factory: Factory, issuer: Issuer, options: BindingOptions) -> None:
    sessions = factory(options=options)
    for person, word in ((ALICE, "alice's"), (BOB, "bob's")):
        with sessions(token=token(issuer, person, email=f"{word}@example.com")) as session:
            assert session.scalars(TASKS).all() == [word]
            asked = select(supabase.auth.uid(), supabase.auth.role(), supabase.auth.email())
            assert [str(one) for one in session.execute(asked).one()] == [
                *(person, "authenticated", f"{word}@example.com")
            ]
            assert session.scalar(select(supabase.auth.jwt()["sub"].astext)) == person
            # The default of the column is the caller.
            session.execute(text("INSERT INTO todos (task) VALUES ('mine, too')"))
            assert session.scalars(TASKS).all() == sorted([word, "mine, too"])


@pytest.mark.parametrize("options", ON_SUPABASE)
def test_a_caller_without_a_token_sees_public_rows_only(
    factory: Factory, issuer: Issuer, options: BindingOptions
) -> None:
    with factory(options=options)() as session:
        identify(session, Caller.anonymous("anon"))
        assert session.scalars(NOTICES).all() == ["open"]
        asked = select(supabase.auth.uid(), supabase.auth.jwt(), supabase.auth.role())
        assert session.execute(asked).one() == (None, None, "anon")
        with pytest.raises(DBAPIError, match="permission denied for table todos"):
            session.scalars(TASKS)


@pytest.mark.parametrize("options", ON_SUPABASE)
@pytest.mark.parametrize("setting", ["request.jwt.claim.sub", "request.jwt.claim", "request.jwt.claims"])
@pytest.mark.exhaustive
def test_settings_that_a_caller_leaves_make_the_next_one_no_other_person(
    factory: Factory, issuer: Issuer, options: BindingOptions, setting: str
) -> None:
    sessions = factory(options=options)
    forged = BOB if setting.endswith("sub") else f'{{"sub": "{BOB}", "role": "authenticated"}}'
    with sessions(token=token(issuer, BOB)) as session:
        session.execute(select(func.set_config(setting, forged, False)))
        session.commit()
    with sessions(token=token(issuer, ALICE)) as session:
        assert session.scalars(TASKS).all() == ["alice's"]
        assert session.scalar(select(supabase.auth.jwt()["sub"].astext)) == ALICE
    with sessions() as session:
        identify(session, Caller.anonymous("anon"))
        assert session.execute(select(supabase.auth.uid(), supabase.auth.jwt())).one() == (None, None)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.exhaustive
async def test_people_see_their_own_rows_only_under_asyncio(
    on_supabase: Supabase, filled: str, issuer: Issuer, driver: str, runner: asyncio.Runner
) -> None:
    engine = create_async_engine(on_supabase.url(filled, "app", driver), pool_size=1)
    sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
    enforce_row_security(sessions, verifier=Verifier(issuer.provider))
    for person, word in ((ALICE, "alice's"), (BOB, "bob's")):
        async with sessions(token=token(issuer, person)) as session:
            assert (await session.scalars(TASKS)).all() == [word]
            await session.execute(select(func.set_config("request.jwt.claim.sub", person, False)))
            await session.commit()
    async with sessions() as session:
        identify(session, Caller.anonymous("anon"))
        assert (await session.scalars(NOTICES)).all() == ["open"]
        assert await session.scalar(select(supabase.auth.uid())) is None
    await engine.dispose()


@pytest.mark.exhaustive
def test_the_policies_of_storage_and_realtime_hold_for_sessions(
    on_supabase: Supabase, filled: str, factory: Factory, issuer: Issuer
) -> None:
    sessions = factory()
    objects = supabase.storage_objects(MetaData())
    with sessions(token=token(issuer, BOB)) as session:
        assert session.scalars(select(objects.c.name)).all() == ["a.png"]
        own = objects.insert().values(id=func.gen_random_uuid(), bucket_id="avatars", owner_id=BOB)
        session.execute(own.values(name="bob.png"))
        with pytest.raises(DBAPIError, match="row-level security"):
            session.execute(own.values(name="alice.png", owner_id=ALICE))
    messages = supabase.realtime_messages(MetaData())
    with on_supabase.admin(filled).begin() as connection:
        connection.execute(
            messages.insert().values(topic="t", extension="broadcast", inserted_at=func.now(), id=ALICE)
        )
    for topic, seen in ((f"user:{BOB}", 1), (f"user:{ALICE}", 0)):
        with sessions(token=token(issuer, BOB)) as session:
            session.execute(select(func.set_config("realtime.topic", topic, True)))
            assert len(session.execute(select(messages.c.id)).all()) == seen


@pytest.mark.exhaustive
def test_service_role_is_refused(factory: Factory, issuer: Issuer) -> None:
    sessions = factory()
    with pytest.raises(InvalidToken, match="names a role that isn't one of provider 'supabase'"):
        Verifier(issuer.provider).verify(issuer.token(ALICE, claims={"role": "service_role"}))
    as_service = service_session(sessions, reason="a repair", role="service_role")
    with as_service as session, pytest.raises(BindingError, match="may not SET ROLE"):
        session.scalars(TASKS)
    with service_session(sessions, reason="a repair", role="anon") as session:
        assert session.scalar(select(supabase.auth.uid())) is None


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("authenticator", "is a member of 'service_role', which has BYPASSRLS"),
        ("postgres", "has BYPASSRLS"),
        ("supabase_admin", "is a superuser"),
    ],
)
@pytest.mark.exhaustive
def test_the_login_roles_of_supabase_are_refused(
    factory: Factory, issuer: Issuer, user: str, reason: str
) -> None:
    sessions = factory(user=user)
    with sessions(token=token(issuer, ALICE)) as session, pytest.raises(UnsafeRole, match=reason):
        session.scalars(TASKS)


@pytest.mark.exhaustive
def test_a_session_may_be_service_role_where_the_login_role_is_its_member(factory: Factory) -> None:
    """As a job's own factory has it: it logs in as another role than the app."""
    sessions = factory(user="authenticator")
    with service_session(sessions, reason="a job", role="service_role") as session:
        assert session.scalars(TASKS).all() == ["alice's", "bob's"]


def test_tokens_of_the_legacy_secret_are_refused(issuer: Issuer) -> None:
    verifier = Verifier(issuer.provider)
    secret = "a-legacy-secret-of-32-bytes-or-more-for-hs256"
    claims = {"iss": issuer.issuer, "sub": ALICE, "aud": "authenticated", "role": "authenticated"}
    for payload in (claims, {"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon"}):
        forged = jwt.encode({**payload, "exp": time.time() + 60}, secret, algorithm="HS256")
        with pytest.raises(InvalidToken, match=r"shared secret has signed it \(HS256\).*signing key"):
            verifier.verify(forged)
