"""Who there is, what is theirs, and how many rows each must therefore see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

from sqlalchemy import URL, BigInteger, Text, create_engine, func, insert, text
from sqlalchemy import Identity as Generated
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, Policy, Role, anonymous, auth, auth_uid, authenticated, crud_policy
from sqla_rls.testing.postgres import Server

NOTICES: Final = 3

auditor = Role("auditor")


class Base(DeclarativeBase):
    pass


class Fact(Base):
    """Each person's own, in a number that never changes; auditors see all."""

    __tablename__ = "facts"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, index=True)

    __table_args__ = (
        # As text, which implies the privileges: the policies must refuse what these would allow.
        crud_policy(authenticated, read=auth_uid(user_id), modify="false"),
        Policy("auditor-read", "SELECT", [auditor], using=True),
    )


class Note(Base):
    """*author* is who wrote it, as the program means; *user_id*, as Postgres does."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    author: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class Notice(Base):
    """For everybody to read."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(BigInteger, Generated(), primary_key=True)

    __table_args__ = (Policy("all-read", "SELECT", [anonymous, authenticated], using=True),)


def person(number: int) -> Caller:
    return Caller(role="authenticated", subject=f"user-{number}", claims={"facts": 1 + number % 7})


def facts_of(caller: Caller) -> int:
    """How many facts *caller*, made by ``person``, must see."""
    facts: int = caller.claims["facts"]
    return facts


@contextmanager
def world(server: Server, people: int) -> Iterator[URL]:
    """A database of so many *people*; the URL of a login role that may do nothing itself."""
    # Roles belong to the server, where others may be at it, too.
    database, login = server.create_database(), f"soak_{uuid4().hex[:8]}"
    engine = create_engine(server.url(database), poolclass=NullPool)
    Base.metadata.create_all(engine)
    rows = [{"user_id": one.subject} for one in map(person, range(people)) for _ in range(facts_of(one))]
    inherit = "WITH INHERIT FALSE" if server.version >= 16 else ""
    with engine.begin() as connection:
        connection.execute(insert(Fact), rows)
        connection.execute(insert(Notice), [{} for _ in range(NOTICES)])
        connection.execute(text(f"CREATE ROLE {login} LOGIN NOINHERIT PASSWORD '{login}'"))
        connection.execute(text(f"GRANT authenticated, anonymous, auditor TO {login} {inherit}"))
        connection.execute(text("ANALYZE"))
    engine.dispose()
    try:
        yield server.url(database, user=login, password=login)
    finally:
        server.drop_database(database)
        engine = create_engine(server.url(), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {login}"))


def forged(server: Server, database: str | None) -> int:
    """How many notes were written by one person in the name of another."""
    engine = create_engine(server.url(database), poolclass=NullPool)
    with engine.connect() as connection:
        count = connection.scalar(func.count().select().select_from(Note).where(Note.user_id != Note.author))
    engine.dispose()
    assert count is not None
    return count
