"""Connections in AUTOCOMMIT, by each driver that sends its binding ahead, and who is bound on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.orm import Session

from tests.support.line import HOWS, How, Line
from tests.support.sessions import BACKEND, CALLER, NOBODY, TASKS

ONE_SHOT = {
    "psycopg": HOWS["psycopg, one-shot"],
    "psycopg, with_begin": How("psycopg", "with_begin", autocommit=True),
    "psycopg, asyncio": HOWS["psycopg, asyncio, one-shot"],
    "asyncpg": HOWS["asyncpg, one-shot"],
    "asyncpg, with_begin": How("asyncpg", "with_begin", is_async=True, autocommit=True),
}


@contextmanager
def opened(url: URL, how: How, runner: asyncio.Runner) -> Iterator[Line]:
    line = Line(url, how, runner)
    yield line
    line.hang_up()


def backend(session: Session) -> object:
    return session.scalar(BACKEND)


def tasks(session: Session) -> object:
    return session.scalars(TASKS).all()


def is_nobodys(line: Line) -> bool:
    return line.raw(lambda connection: connection.execute(CALLER).one() == NOBODY)
