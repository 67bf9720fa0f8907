"""The stage of the demo: a database whose owner is no superuser, and a transcript that keeps count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from textwrap import fill
from typing import Any, Final, LiteralString, ParamSpec, TypeAlias

import psycopg
from psycopg import sql
from sqlalchemy import URL

from sqla_rls.testing.postgres import Server

ROOT: Final = Path(__file__).resolve().parents[2]

P = ParamSpec("P")
Query: TypeAlias = sql.SQL | sql.Composed
Refusal: TypeAlias = tuple[type[Exception], str]


class MigrationFailed(Exception):
    """What Alembic said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database whose owner is no superuser, as with a hosted Postgres."""

    owner: URL
    superuser: psycopg.Connection[tuple[Any, ...]]
    suffix: str  # of roles, where others use the server, too

    def alembic(self, *arguments: str) -> str:
        """Run Alembic as the owner; the last line that it prints."""
        print(f"  $ alembic {' '.join(arguments)}")
        environment = {**os.environ, "DATABASE_URL": in_full(self.owner)}
        environment.pop("DATABASE_AUTHENTICATED_URL", None)
        command = [sys.executable, "-m", "alembic", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            # The last line is the address of the error's documentation.
            failure = MigrationFailed(last_line(done.stdout + done.stderr.partition("\nSee https://")[0]))
            failure.add_note(done.stdout + done.stderr)
            raise failure
        return last_line(done.stdout)

    def value(self, query: Query) -> object:
        """The first column of the first row, as a superuser sees it; None where there is no row."""
        row = self.superuser.execute(query).fetchone()
        return row and row[0]

    def inventory(self) -> set[str]:
        """What is in the database and who may use it and its schemas; without Alembic's own table."""
        return {line for (line,) in self.superuser.execute(INVENTORY)}

    def differences(self, before: set[str]) -> list[str]:
        return sorted(before ^ self.inventory())


INVENTORY: Final = """
WITH schemas AS (
  SELECT * FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
)
SELECT format('schema %s', nspname) FROM schemas
UNION SELECT format('%s on schema %s for %s', privilege_type, nspname, grantee::regrole)
  FROM schemas, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
UNION SELECT format('%s on the database for %s', privilege_type, grantee::regrole)
  FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = current_database()
UNION SELECT format('relation %s', c.oid::regclass)
  FROM pg_class AS c JOIN schemas AS s ON c.relnamespace = s.oid WHERE relname !~ '^alembic_version'
UNION SELECT format('function %s', p.oid::regprocedure)
  FROM pg_proc AS p JOIN schemas AS s ON p.pronamespace = s.oid
UNION SELECT format('policy %s on %s', polname, polrelid::regclass) FROM pg_policy
"""


@contextmanager
def new_database(server: Server) -> Iterator[Database]:
    """A database and its owner, who may create roles; both are gone afterwards."""
    # Roles belong to the whole server; on one that others use, too, ours get names of their own.
    suffix = "" if server.socket_directory else f"_{token_hex(3)}"
    name = f"todos{suffix}"
    owner = server.url(name, user=f"owner{suffix}", password=token_hex()).set(drivername="postgresql")
    with psycopg.connect(in_full(server.url()), autocommit=True) as superuser:
        try:
            create_role(superuser, owner, "LOGIN CREATEROLE")
            server.create_database(name, owner=owner.username)
            with psycopg.connect(in_full(server.url(name)), autocommit=True) as connection:
                yield Database(owner=owner, superuser=connection, suffix=suffix)
        finally:
            server.drop_database(name)
            for role in ("app", "owner"):
                drop_role(superuser, role + suffix)


def create_role(superuser: psycopg.Connection[Any], url: URL, options: LiteralString) -> None:
    """The role that logs in by *url*."""
    statement = sql.SQL("CREATE ROLE {} " + options + " PASSWORD {}")
    superuser.execute(statement.format(sql.Identifier(url.username or ""), sql.Literal(url.password)))


def drop_role(superuser: psycopg.Connection[Any], name: str) -> None:
    superuser.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@dataclass(slots=True)
class Transcript:
    """What happened, and how much of it as it must."""

    passed: int = 0
    failed: int = 0

    def chapter(self, title: str) -> None:
        print(f"\n{title}")

    def equal(
        self, sentence: str, expected: object, action: Callable[P, object], *args: P.args, **kw: P.kwargs
    ) -> None:
        """Check that *action* returns what is *expected*."""
        try:
            found = action(*args, **kw)
        except Exception as error:
            self.line(False, sentence, described(error), shown(expected))
        else:
            self.line(found == expected, sentence, shown(found), shown(expected))

    def refused(
        self, sentence: str, refusal: Refusal, action: Callable[P, object], *args: P.args, **kw: P.kwargs
    ) -> None:
        """Check that *action* raises the error of this very class that says these words."""
        kind, words = refusal
        try:
            found = action(*args, **kw)
        except Exception as error:
            cause = getattr(error, "orig", None) or error
            good = type(cause) is kind and words in str(cause)
            self.line(good, sentence, described(error), f"{kind.__name__}, {words}")
        else:
            self.line(False, sentence, shown(found), f"{kind.__name__}, {words}")

    def line(self, good: bool, sentence: str, outcome: str, expected: str | None = None) -> None:
        self.passed += good
        self.failed += not good
        line = f"{'✓' if good else '✗'} {sentence}: {outcome}"
        if expected is not None and not good:
            line += f"; expected {expected}"
        print(fill(line, 100, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False))


def shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(value)


def described(error: Exception) -> str:
    """The error in a line; what Postgres says, with its SQLSTATE."""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlstate", None) or type(cause).__name__
    return f"{name}, {str(cause).partition(chr(10))[0]}"


def last_line(output: str) -> str:
    return output.strip().rpartition("\n")[2]


def in_full(url: URL) -> str:
    """With the password, for psycopg and the environment."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
