"""pgrls and splinter beside our rules: their findings, about the same objects, without duplicates.

pgrls is a command of its own.  splinter is a file of SQL, of which the user has a copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Kind, Level, Remedy
from sqla_rls.analyze.lint.pgrls_config import pgrls_config
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

OTHERS: Final = ("pgrls", "splinter")

#: The rules of ours that are about the same fault.
_SAME: Final[Mapping[str, tuple[str, ...]]] = {
    "pgrls/SEC001": ("table-without-row-security",),
    "pgrls/SEC002": ("force-missing", "login-role"),
    "pgrls/SEC003": ("everyone-reads", "everyone-writes"),
    "pgrls/SEC004": ("no-subject",),
    "pgrls/SEC005": ("everyone-reads", "everyone-writes", "membership-without-caller", "wrong-correlation"),
    "pgrls/SEC006": ("check-wider-than-using", "default-names-owner", "rows-given-away"),
    "pgrls/SEC008": ("everyone-reads", "everyone-writes"),
    "pgrls/SEC009": ("row-security-without-policies",),
    "pgrls/SEC011": ("everyone-reads", "everyone-writes"),
    "pgrls/SEC012": ("only-restrictive",),
    "pgrls/SEC014": ("definer-reads-protected", "definer-search-path"),
    "pgrls/SEC015": ("definer-search-path",),
    "pgrls/SEC016": ("login-role",),
    "pgrls/SEC019": ("error-for-some-callers",),
    "pgrls/SEC020": ("check-wider-than-using", "everyone-writes", "rows-given-away"),
    "pgrls/SEC022": ("privilege-without-policy",),
    "pgrls/SEC025": ("table-without-row-security",),
    "pgrls/SEC028": ("everyone-writes", "default-names-owner", "check-wider-than-using"),
    "pgrls/SEC029": ("login-role",),
    "pgrls/SEC032": ("row-security-off",),
    "pgrls/SEC033": ("writable-claims",),
    "pgrls/SEC035": ("unique-reveals-rows",),
    "pgrls/SEC038": ("everyone-reads", "no-subject"),
    "pgrls/SEC039": ("everyone-writes",),
    "pgrls/SEC040": ("check-wider-than-using", "rows-given-away"),
    "pgrls/SEC041": ("partition-past-parent",),
    "pgrls/SEC042": ("definer-reads-protected",),
    "pgrls/SEC043": ("partition-past-parent",),
    "pgrls/SEC046": ("frozen-caller",),
    "pgrls/SEC047": ("foreign-key-reveals-rows",),
    "pgrls/SEC048": ("login-role",),
    "pgrls/SEC049": ("everyone-reads", "table-without-row-security"),
    "pgrls/SEC053": ("foreign-table",),
    "pgrls/SEC054": ("materialized-view",),
    "pgrls/PERF001": ("function-per-row",),
    "pgrls/PERF002": ("volatile-function",),
    "pgrls/PERF003": ("missing-index",),
    "pgrls/PERF004": ("column-in-expression",),
    "pgrls/VIEW001": ("view-without-invoker",),
    "pgrls/VIEW003": ("materialized-view",),
    "splinter/auth_rls_initplan": ("function-per-row",),
    "splinter/multiple_permissive_policies": ("several-permissive-policies",),
    "splinter/policy_exists_rls_disabled": ("row-security-off",),
    "splinter/rls_enabled_no_policy": ("row-security-without-policies",),
    "splinter/security_definer_view": ("view-without-invoker",),
    "splinter/function_search_path_mutable": ("definer-search-path",),
    "splinter/rls_disabled_in_public": ("table-without-row-security",),
    "splinter/rls_references_user_metadata": ("writable-claims",),
    "splinter/materialized_view_in_api": ("materialized-view",),
    "splinter/foreign_table_in_api": ("foreign-table",),
    "splinter/rls_policy_always_true": ("everyone-reads", "everyone-writes", "check-wider-than-using"),
    "splinter/anon_security_definer_function_executable": ("definer-reads-protected",),
    "splinter/authenticated_security_definer_function_executable": ("definer-reads-protected",),
}
_LEVELS: Final[Mapping[str, Level]] = {
    "error": "error",
    "warning": "warning",
    "warn": "warning",
    "info": "info",
}
_KINDS: Final[Mapping[str, Kind]] = {"v": "view", "m": "view", "f": "foreign table"}
#: The name of an object, its kind, and a policy.
Place: TypeAlias = tuple[str, Kind, str | None]
#: splinter asks for the privileges of these roles, which Supabase has.
_SPLINTER_ROLES: Final = ("anon", "authenticated")


def others(
    database: Database,
    names: Collection[str],
    *,
    splinter: Path | None = None,
) -> list[Finding]:
    """Return the findings of other programs about *database*; one that can't run is noted as unknown.

    Args:
        database: the database.
        names: the programs: "pgrls", "splinter".
        splinter: a file with the SQL of splinter.

    Raises:
        AnalysisError: a name is of no program, or the file can't be read.
    """
    check_names(names)
    running: dict[str, Callable[[], list[Finding]]] = {
        "pgrls": lambda: _pgrls(database),
        "splinter": lambda: _splinter(database, splinter),
    }
    return [finding for name in OTHERS if name in names for finding in running[name]()]


def check_names(names: Collection[str]) -> None:
    """Raise AnalysisError if a name is of no program."""
    unknown = sorted(set(names) - set(OTHERS))
    if unknown:
        raise AnalysisError(
            f"{unknown[0]!r} can't run: sqla-rls doesn't know it. Give one of {', '.join(OTHERS)}"
        )


def folded(findings: Sequence[Finding], more: Sequence[Finding]) -> list[Finding]:
    """Return *findings* and *more*; the second one about a fault becomes evidence of the first."""
    result = list(findings)
    for one in more:
        place = next((number for number, other in enumerate(result) if _is_same(other, one)), None)
        if place is None:
            result.append(one)
        else:
            known = result[place]
            result[place] = replace(known, evidence=[*known.evidence, *one.evidence])
    return result


def _is_same(known: Finding, one: Finding) -> bool:
    if known.object != one.object or (known.policy and one.policy and known.policy != one.policy):
        return False
    if known.rule == one.rule:
        return False
    ours = _SAME.get(one.rule, ())
    theirs = _SAME.get(known.rule, ())
    is_of_another = known.rule.partition("/")[0] != one.rule.partition("/")[0]
    return known.rule in ours or (is_of_another and bool(set(ours) & set(theirs)))


def _finding(database: Database, rule: str, level: str, place: Place, text_: str) -> Finding:
    return Finding(
        rule=rule,
        level=_LEVELS.get(level.lower(), "warning"),
        object=place[0],
        kind=place[1],
        policy=place[2],
        text=text_,
        evidence=[Evidence(kind="catalog", text=f"{rule} reports: {text_}", data={"rule": rule})],
        remedy=Remedy(text=f"See the documentation of {rule.partition('/')[0]}."),
    )


def _places(database: Database) -> Callable[[str], Place]:
    """Return a function that finds the object of ``schema.name``, or of ``schema.table.policy``, unquoted."""
    known: dict[str, Place] = {}
    role: Kind = "role"
    for name, relation in database.schema.relations.items():
        plain = f"{relation.schema}.{relation.relname}"
        kind: Kind = _KINDS.get(relation.kind, "table")
        known[plain] = (name, kind, None)
        for policy in relation.policies:
            known[f"{plain}.{policy.name}"] = (name, kind, policy.name)
    for signature, function in database.schema.functions.items():
        place: Place = (signature, "function", None)
        known.setdefault(f"{function.schema}.{function.name}", place)
    for name in database.schema.roles:
        known.setdefault(name, (name, role, None))

    def find(location: str) -> Place:
        if location in known:
            return known[location]
        # "public.docs (index)", "public.docs.trigger", "public.function(arguments)".
        parts = location.partition(" (")[0].partition("(")[0]
        while parts not in known and "." in parts:
            parts = parts.rpartition(".")[0]
        return known.get(parts, (location, "database", None))

    return find


def _pgrls(database: Database) -> list[Finding]:
    command = pgrls_command()
    if command is None:
        database.note_unknown("pgrls", "it isn't installed. Run: pip install pgrls", kind="program")
        return []
    url = database.connection.engine.url.set(drivername="postgresql")
    with tempfile.TemporaryDirectory() as folder:
        # The project's own configuration knows more.
        path = Path("pgrls.toml")
        if not path.is_file():
            path = Path(folder) / "pgrls.toml"
            path.write_text(pgrls_config(database), encoding="utf-8")
        done = subprocess.run(  # noqa: S603
            [*command, "lint", "--format", "json", "--config", str(path)],
            # A password on the command line would be in the list of processes.
            # Without the timeout, a lock of another transaction would stop the run for ever.
            env={
                **os.environ,
                "DATABASE_URL": url.render_as_string(hide_password=False),
                "PGOPTIONS": "-c lock_timeout=5s -c statement_timeout=60s",
            },
            capture_output=True,
            text=True,
        )
    try:
        violations = json.loads(done.stdout)["violations"]
    except (ValueError, KeyError, TypeError):
        said = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        database.note_unknown(
            "pgrls", f"its exit status is {done.returncode}{said and f': {said}'}", kind="program"
        )
        return []
    find = _places(database)
    return [
        _finding(
            database,
            f"pgrls/{one['rule_id']}",
            one["severity"],
            find(one["location"]) if one["location"] else (database.name, "database", None),
            one["message"],
        )
        for one in violations
    ]


def pgrls_command() -> list[str] | None:
    """Return the command of pgrls; None if it isn't installed."""
    spec = find_spec("pgrls")
    # A folder of that name is a namespace package, without an origin.
    if spec is not None and spec.origin is not None:
        return [sys.executable, "-m", "pgrls"]
    found = shutil.which("pgrls")
    return [found] if found else None


def _splinter(database: Database, path: Path | None) -> list[Finding]:
    if path is None:
        database.note_unknown(
            "splinter",
            "it isn't part of sqla-rls. Download splinter.sql of github.com/supabase/splinter, and give "
            "--splinter PATH",
            kind="program",
        )
        return []
    try:
        script = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise AnalysisError(
            f"splinter can't run: {path} can't be read. Give the path of splinter.sql"
        ) from None
    find = _places(database)
    try:
        with _with_roles(database) as connection:
            rows = _run(connection, script, database)
    except (DBAPIError, AnalysisError) as error:
        reason = getattr(error, "orig", None) or error
        database.note_unknown("splinter", str(reason).partition("\n")[0], kind="program")
        return []
    found = []
    for row in rows:
        details = row["metadata"] or {}
        location = ".".join(str(details[key]) for key in ("schema", "name") if details.get(key))
        place = find(location) if location else (database.name, "database", None)
        found.append(_finding(database, f"splinter/{row['name']}", row["level"], place, row["detail"]))
    return found


@contextmanager
def _with_roles(database: Database) -> Iterator[Connection]:
    """Give a connection to a database with the roles of Supabase: the scratch database gets them."""
    missing = [name for name in _SPLINTER_ROLES if name not in database.schema.roles]
    if not missing:
        yield database.connection
        return
    quote = database.quoted
    with database.scratch() as connection:
        for name in missing:
            connection.exec_driver_sql(f"CREATE ROLE {quote(name)}")
        if "anon" in missing:
            for role in database.anonymous_roles:
                if role in database.schema.roles:
                    connection.exec_driver_sql(f"GRANT {quote(role)} TO anon")
        yield connection


def _run(connection: Connection, script: str, database: Database) -> list[dict[str, Any]]:
    """Run the statements of *script*, which may only read, and return the rows of the last one."""
    schemas = sorted({one.schema for one in database.relations})
    with undone(connection):
        connection.execute(
            text("SELECT pg_catalog.set_config('pgrst.db_schemas', :schemas, true)"),
            {"schemas": ",".join(schemas)},
        )
        connection.execute(text("SELECT pg_catalog.set_config('transaction_read_only', 'on', true)"))
        driver = connection.connection.driver_connection
        assert driver is not None
        try:
            cursor = driver.execute(script)
        except driver_error() as error:
            raise AnalysisError(str(error).partition("\n")[0]) from None
        while cursor.nextset():
            pass
        names = [one.name for one in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def driver_error() -> type[Exception]:
    """Return the class of the driver's errors."""
    import psycopg

    return psycopg.Error
