"""The short forms say what the long ones say."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import BigInteger, Engine, Identity, MetaData, Text, Uuid, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import (
    Caller,
    CallerId,
    CallerUuid,
    Role,
    anonymous,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    declare_roles,
    login_role,
    own_rows,
)
from sqla_rls.declare.collect import declared
from tests.support.project import Project, state, statements_of, todos
from tests.support.sessions import Sessions


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[CallerId]
    __table_args__ = (own_rows("user_id"),)


class Draft(Base):
    __tablename__ = "drafts"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner: Mapped[CallerUuid] = mapped_column()
    __table_args__ = (own_rows(owner),)


class Long(DeclarativeBase):
    pass


class LongNote(Long):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class LongDraft(Long):
    __tablename__ = "drafts"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner: Mapped[UUID] = mapped_column(Uuid, server_default=auth.uid(), index=True)
    __table_args__ = (crud_policy(authenticated, read=auth_uid(owner), modify=auth_uid(owner)),)


def test_they_emit_what_the_long_forms_emit() -> None:
    assert statements_of(Base.metadata) == statements_of(Long.metadata)


def test_other_roles_may_own_rows() -> None:
    metadata = todos(own_rows("user_id", role=["editor", "author"]))
    (policy, *_) = declared([metadata]).policies.values()
    assert policy.roles == {"editor", "author"}


@pytest.mark.exhaustive
def test_a_migration_of_them_is_clean(project: Project) -> None:
    project.migrate(Base.metadata)


def test_a_login_role_may_do_nothing_of_its_own() -> None:
    assert login_role("app") == Role("app", login=True, inherit=False, member_of=[authenticated, anonymous])


@pytest.mark.exhaustive
def test_a_migration_makes_a_login_role(project: Project) -> None:
    metadata = MetaData()
    declare_roles(metadata, login_role("rls_test_app"))
    project.migrate(metadata)
    with project.engine.connect() as connection:
        assert ("role", "rls_test_app") in state(connection)
    project.downgrade()


@pytest.mark.exhaustive
def test_callers_own_what_they_insert(sessions: Sessions, alice: Caller, bob: Caller, admin: Engine) -> None:
    Base.metadata.create_all(admin)
    with sessions(alice) as session:
        session.add(Note())
        session.commit()
    with sessions(bob) as session:
        assert session.scalars(select(Note)).all() == []
    with sessions(alice) as session:
        assert [note.user_id for note in session.scalars(select(Note))] == [alice.subject]
    carol = Caller(role="authenticated", subject=str(uuid4()))
    with sessions(carol) as session:
        session.add(Draft())
        session.commit()
        assert [str(draft.owner) for draft in session.scalars(select(Draft))] == [carol.subject]
