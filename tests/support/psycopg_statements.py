"""Statements by the ways of psycopg; each answers with the caller."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from tests.support.sessions import CALLER

WHO = "SELECT current_user::text, auth.user_id()"


def raw(session: Session) -> Any:
    """The connection of psycopg, or of asyncpg."""
    return session.connection().connection.driver_connection


def by_cursor(session: Session) -> object:
    return raw(session).cursor().execute(WHO).fetchone()


def by_server_cursor(session: Session) -> object:
    with raw(session).cursor("named") as cursor:
        return cursor.execute(WHO).fetchone()


def by_stream(session: Session) -> object:
    return next(iter(list(raw(session).cursor().stream(WHO))))


def by_copy(session: Session) -> object:
    with raw(session).cursor().copy(f"COPY ({WHO}) TO STDOUT") as copy:
        (row,) = copy.rows()
        return row


def by_executemany_of_psycopg(session: Session) -> object:
    with raw(session).cursor() as cursor:
        cursor.executemany(WHO + " WHERE %s", [[True]], returning=True)
        return cursor.fetchone()


def by_yield_per(session: Session) -> object:
    return session.execute(CALLER, execution_options={"yield_per": 1}).one()
