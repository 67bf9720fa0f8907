"""What users write is typed, too: mypy and pyright read this file; nothing runs it."""

from __future__ import annotations

from typing import assert_type
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Identity,
    MetaData,
    Table,
    Text,
    create_engine,
    exists,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.schema import BLANK_SCHEMA

import sqla_rls
from sqla_rls import (
    BindingOptions,
    Caller,
    CallerId,
    CallerUuid,
    Policy,
    Role,
    Verifier,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    declare_on,
    declare_roles,
    default_privileges,
    enable_row_level_security,
    enforce_row_security,
    force_row_level_security,
    grant,
    grant_on,
    identify,
    ignore,
    in_jwt_claim,
    jwt_claim,
    jwt_claim_contains,
    login_role,
    member_of,
    memberships,
    own_rows,
    provider,
    revoke_public_privileges,
    sql_function,
    view,
)


class Base(DeclarativeBase):
    pass


my_teams = memberships(
    "my_teams", Base.metadata, group="members.team", user="members.user_id", role="members.role", to="reader"
)


class Todo(Base):
    __tablename__ = "todos"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id())
    team: Mapped[str] = mapped_column(Text)
    is_public: Mapped[bool] = mapped_column()
    __table_args__ = (
        crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),
        Policy(
            "team", "SELECT", [Role("lead"), "manager"], using=jwt_claim("team") == team, permissive=False
        ),
        Policy("teams", "SELECT", using=member_of(team, my_teams()) | member_of(team, my_teams("owner"))),
        Policy("listed", using=in_jwt_claim(team, "teams"), with_check=jwt_claim_contains("may", value="w")),
        Policy("public", "SELECT", using=is_public),
        Policy("public later", "SELECT", using=lambda: Todo.is_public),
        crud_policy("manager", read=is_public, modify=is_public),
        Policy("text", roles="manager", using="task <> ''", with_check=True),
        Policy("members", "SELECT", using=lambda: member_of(Todo.team, Member.team, Member.user_id)),
        Policy("leads", "SELECT", using=member_of(team, select(jwt_claim("team")))),
        Policy("later", using=lambda: exists(select(Todo.id).where(auth_uid(Todo.user_id)))),
        grant("SELECT", to="reporting"),
        grant("UPDATE", columns=["team", team], to="reporting"),
        force_row_level_security(),
    )


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[CallerId]
    author: Mapped[CallerUuid | None]
    __table_args__ = (own_rows("user_id"), own_rows("author", role=["editor", authenticated]))


assert_type(Note().user_id, str)
assert_type(Note().author, UUID | None)
declare_roles(Base.metadata, login_role("login"))


class Member(Base):
    __tablename__ = "members"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    team: Mapped[str] = mapped_column(primary_key=True)


Table("core", MetaData(), crud_policy("authenticated", read=True, modify=None))
default_privileges(Base.metadata, "SELECT", to=authenticated, schema="public")
default_privileges(Base.metadata, "SELECT", to=authenticated, schema=BLANK_SCHEMA)
declare_on(
    Base.metadata.tables["todos"],
    enable_row_level_security(),
    Policy("none", using=False, imply_privileges=False),
)
declare_on(Member, own_rows("user_id"))
declare_on(Member.__table__, force_row_level_security())
sql_function("is_member", Base.metadata, arguments="org uuid", returns="boolean", body="…", to=authenticated)
open_todos = view(
    "open_todos", Base.metadata, select(Todo.user_id), grant("SELECT", to=authenticated), schema="app"
)
assert_type(open_todos, Table)
declare_roles(Base.metadata, Role("app", login=True, member_of=[authenticated, "reporting"]))
grant_on(Base.metadata, "EXECUTE", function="is_member(uuid)", to=authenticated)
grant_on(Base.metadata, "USAGE", sequence=Member.team, to=authenticated)
sql_function(
    "now_in",
    Base.metadata,
    returns="text",
    body="…",
    to="app",
    language="plpgsql",
    settings={"a.b": "c"},
    search_path=None,
)
revoke_public_privileges(Base.metadata)
ignore(Base.metadata, policies="dba_*", roles=["supabase_*"])
assert_type(jwt_claim("a", "b"), ColumnElement[str])
assert_type(jwt_claim("a", type_=BigInteger), ColumnElement[int])
condition: ColumnElement[bool] = auth_uid("user_id")
condition = jwt_claim_contains("realm_access", "roles", value="admin") | ~in_jwt_claim("team", "teams")

verifier = Verifier(provider.stack_auth("project"))
assert_type(verifier.verify("token"), sqla_rls.Caller)
provider.google(client_id=("web", "android"), role="member")
provider.clerk("clerk.example.com", subject_claim=("ids", "external_id"))
provider.keycloak("host", "realm", audience="api", role_claim=("realm_access", "roles"), roles=("admin",))

SessionLocal = sessionmaker(create_engine("postgresql+psycopg://"))
enforce_row_security(SessionLocal, verifier=verifier)
enforce_row_security(scoped_session(SessionLocal), options=BindingOptions(set_role=False))
with SessionLocal(token="…") as session:
    assert_type(session, Session)
    identify(session, Caller.anonymous())

AsyncSessionLocal = async_sessionmaker(create_async_engine("postgresql+asyncpg://"))
enforce_row_security(AsyncSessionLocal, verifier=verifier)


async def read(registry: async_scoped_session[AsyncSession]) -> None:
    async with AsyncSessionLocal(token="…") as session:
        assert_type(session, AsyncSession)
        identify(session, await verifier.verify_async("token"))
    identify(registry, Caller.anonymous())


crud_policy(authenticated, read=5, modify=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
member_of("team", Member.team, Member.user_id, Member.team)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
crud_policy(authenticated, read=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
jwt_claim_contains("may", value=["w"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
identify(SessionLocal(), "alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
provider.google()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
provider.stack_auth("project", rolle="admin")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
