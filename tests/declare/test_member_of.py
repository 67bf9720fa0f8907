"""What members of an organization may do, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ForeignKey,
    Text,
    Uuid,
    delete,
    false,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import Policy, auth_uid, authenticated, crud_policy, jwt_claim, member_of
from tests.support.project import Project
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy


def organization(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


ACME, GLOBEX = organization("acme"), organization("globex")


class Base(DeclarativeBase):
    pass


class Organization(Base):
    __tablename__ = "organizations"

    id: Mapped[UUID] = mapped_column(primary_key=True)

    __table_args__ = (
        crud_policy(
            authenticated,
            read=lambda: member_of(Organization.id, Membership.org_id, Membership.user_id),
            modify=None,
        ),
    )


class Membership(Base):
    __tablename__ = "memberships"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    org_id: Mapped[UUID] = mapped_column(ForeignKey(Organization.id), primary_key=True)
    is_admin: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (Policy("own", "SELECT", authenticated, using=auth_uid(user_id)),)


ADMINISTERED = select(Membership.org_id).where(auth_uid(Membership.user_id), Membership.is_admin)


class Document(Base):
    __tablename__ = "documents"

    title: Mapped[str] = mapped_column(Text, primary_key=True)
    org_id: Mapped[UUID | None] = mapped_column(index=True)

    __table_args__ = (
        crud_policy(
            authenticated,
            read=member_of(org_id, Membership.org_id, Membership.user_id),
            modify=member_of(org_id, ADMINISTERED),
        ),
    )


class Note(Base):
    """For the organization that the token names."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[UUID] = mapped_column()

    __table_args__ = (
        Policy("organization", using=jwt_claim("org", "id", type_=Uuid) == org_id, roles=authenticated),
    )


MEMBERS = {("alice", ACME): True, ("alice", GLOBEX): False, ("bob", GLOBEX): False}
TITLES = select(Document.title).order_by(Document.title)

As = Callable[[str], Connection]


@pytest.fixture
def run_as(engine: Engine) -> Iterator[As]:
    """``run_as("alice")``: a connection on which Alice is bound; what it does isn't kept."""
    with engine.connect() as connection:
        Base.metadata.create_all(connection)
        connection.execute(insert(Organization).values([{"id": ACME}, {"id": GLOBEX}]))
        connection.execute(
            insert(Membership).values(
                [
                    {"user_id": user, "org_id": org, "is_admin": admin}
                    for (user, org), admin in MEMBERS.items()
                ]
            )
        )
        connection.execute(
            insert(Document).values(
                [
                    {"title": "acme's", "org_id": ACME},
                    {"title": "globex's", "org_id": GLOBEX},
                    {"title": "nobody's", "org_id": None},
                ]
            )
        )

        connection.commit()

        def bind(name: str) -> Connection:
            connection.execute(
                select(
                    func.set_config("role", "authenticated", True),
                    func.set_config("request.jwt.claims", f'{{"sub": "{name}"}}', True),
                )
            )
            return connection

        yield bind


@table(
    ("name", "titles"),
    [("alice", ["acme's", "globex's"]), ("bob", ["globex's"]), ("carol", [])],
)
def test_members_see_what_is_their_organizations(run_as: As, name: str, titles: list[str]) -> None:
    assert run_as(name).scalars(TITLES).all() == titles


@pytest.mark.exhaustive
def test_a_second_migration_finds_nothing_to_do(tmp_path: Path, database: URL) -> None:
    project = Project(tmp_path / "migrations", database)
    written = project.migrate(Base.metadata)
    assert "documents.org_id = ANY (ARRAY(SELECT memberships.org_id" in written
    project.downgrade("base")


def test_members_see_their_organizations(run_as: As) -> None:
    assert run_as("bob").scalars(select(Organization.id)).all() == [GLOBEX]


@pytest.mark.exhaustive
def test_a_condition_narrows_the_memberships(run_as: As) -> None:
    alice = run_as("alice")
    renamed = alice.scalars(update(Document).values(title=Document.title + "!").returning(Document.title))
    assert renamed.all() == ["acme's!"]
    assert run_as("bob").execute(delete(Document)).rowcount == 0


def test_nobody_moves_a_row_to_an_organization_of_others(run_as: As) -> None:
    with pytest.raises(ProgrammingError, match="violates row-level security"):
        run_as("alice").execute(update(Document).where(Document.org_id == ACME).values(org_id=GLOBEX))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "statement"),
    [("SELECT", TITLES), ("INSERT", insert(Membership).values(user_id="carol", org_id=ACME))],
    ids=["SELECT", "INSERT"],
)
def test_postgres_refuses_a_policy_that_reads_its_own_table(
    run_as: As, engine: Engine, command: str, statement: Any
) -> None:
    """Hence member_of() refuses it: even for INSERT, as soon as a policy for SELECT has a subquery."""
    condition = (
        "memberships.org_id = ANY (ARRAY(SELECT m.org_id FROM memberships AS m"
        " WHERE (SELECT auth.user_id()) = m.user_id))"
    )
    on = f"ON memberships FOR {command} TO authenticated"
    clause = "WITH CHECK" if command == "INSERT" else "USING"
    with engine.begin() as superuser:
        superuser.execute(text(f"CREATE POLICY colleagues {on} {clause} ({condition})"))
        if command == "INSERT":
            superuser.execute(text("GRANT INSERT ON memberships TO authenticated"))
    with pytest.raises(ProgrammingError, match="infinite recursion detected in policy"):
        run_as("alice").execute(statement)
