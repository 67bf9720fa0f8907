"""A role that logs in for callers has rights that row security doesn't limit.

An app logs in with one role and acts as the caller's role. SQL that a caller injects can RESET ROLE or SET
ROLE. So the login role must not be a superuser, have BYPASSRLS, own protected tables or own objects that
policies use. The same holds for each role that it can become. Nor may it be a member of a predefined role
such as `pg_read_server_files`. It must not inherit the privileges of a caller's role: a statement without a
caller would run with them.

The role that migrates is found, too, if it may SET ROLE to the roles of callers. Exempt it if no app logs in
as it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import resources
from typing import Final

from sqlalchemy import RowMapping, text

from sqla_rls.analyze.lint.database import Database, listed, query_text
from sqla_rls.analyze.lint.finding import Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.rule import rule

_PREDEFINED: Final = "SELECT p.name, p.what FROM (VALUES {predefined_roles}) AS p (name, what)"


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE ROLE admin BYPASSRLS;
        CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated, admin;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    callers = {role.name for role in database.callers}
    owners: dict[str, Level] = {one.owner: "warning" for one in database.tables if one.row_security}
    owners |= {one.owner: "error" for one in database.tables if one.row_security and not one.forced}
    reached: dict[str, list[RowMapping]] = {}
    for row in database.fetch("login_roles"):
        reached.setdefault(row["login"], []).append(row)
    acting = {
        login: rows
        for login, rows in reached.items()
        if login not in database.made_up_roles
        and any(
            row["role"] in callers and (row["role"] == login or row["sets"] or row["inherits"])
            for row in rows
        )
    }
    predefined = _predefined(database) if acting else {}
    used = _owned_and_used(database, [row for rows in acting.values() for row in rows], owners)
    for login, rows in acting.items():
        for row in rows:
            for level, reason, sql in _reasons(row, predefined, owners, used, callers):
                yield Finding(
                    object=login,
                    kind="role",
                    role=row["role"],
                    level=level,
                    text=f"Login role {login} acts for callers, and {reason}.",
                    evidence=[
                        Evidence(
                            kind="catalog",
                            text=f"pg_roles and pg_auth_members: {_path(row)}",
                            data={key: row[key] for key in ("role", "inherits", "sets")},
                        )
                    ],
                    remedy=Remedy(
                        sql=sql.format(login=database.quoted(login), role=database.quoted(row["role"])),
                        python='login_role("…")',
                        text=(
                            f"If only migrations log in as {login}, exempt it in "
                            'pyproject.toml: [[tool.sqla_rls.lint.exempt]] rule = "login-role", '
                            # A JSON string is a string of TOML.
                            f'object = {json.dumps(login, ensure_ascii=False)}, reason = "…"'
                        ),
                    ),
                )


def _with_part(query: str, name: str) -> str:
    """Return *query* with a part that the check of a session has, too."""
    part = resources.files("sqla_rls.session") / "sql" / f"{name}.sql"
    return query.replace(f"{{{name}}}", part.read_text(encoding="utf-8").rstrip())


def _predefined(database: Database) -> Mapping[str, str]:
    """Return the predefined roles that reach rows without policies, and how."""
    found = database.connection.execute(text(_with_part(_PREDEFINED, "predefined_roles")))
    return {row.name: row.what for row in found}


def _owned_and_used(
    database: Database, rows: Iterable[RowMapping], owners: Collection[str]
) -> Mapping[str, list[RowMapping]]:
    """Return what the roles own, and policies use: of the roles for which there is no other reason."""
    roles = {
        row["role"] for row in rows if not (row["is_superuser"] or row["bypasses"] or row["role"] in owners)
    }
    used: dict[str, list[RowMapping]] = {}
    if roles:
        found = database.connection.execute(
            text(_with_part(query_text("owned_and_used"), "used_objects")), {"roles": sorted(roles)}
        )
        for row in found.mappings():
            used.setdefault(row["role"], []).append(row)
    return used


def _reasons(
    row: RowMapping,
    predefined: Mapping[str, str],
    owners: Mapping[str, Level],
    used: Mapping[str, list[RowMapping]],
    callers: set[str],
) -> Iterator[tuple[Level, str, str]]:
    is_itself = row["role"] == row["login"]
    way = "it" if is_itself else f"it can become {row['role']}, which"
    revoke = "REVOKE {role} FROM {login};"
    if row["is_superuser"]:
        yield "error", f"{way} is a superuser", "ALTER ROLE {login} NOSUPERUSER;" if is_itself else revoke
    elif row["bypasses"]:
        yield "error", f"{way} has BYPASSRLS", "ALTER ROLE {login} NOBYPASSRLS;" if is_itself else revoke
    elif row["role"] in predefined:
        yield "error", f"{way} {predefined[row['role']]}", revoke
    elif row["role"] in owners:
        step = "ALTER TABLE … OWNER TO …;" if is_itself else revoke
        # With FORCE, an owner must switch row security off first.
        yield owners[row["role"]], f"{way} owns protected tables", step
    elif row["role"] in used:
        first, *others = used[row["role"]]
        more = f", and {len(others)} more such objects" if others else ""
        step = "REASSIGN OWNED BY {role} TO …;" if is_itself or row["role"] in callers else revoke
        yield "error", f"{way} owns {first['type']} {first['identity']}, {first['why']}{more}", step
    elif row["role"] in callers and row["inherits"] and not is_itself:
        yield "warning", f"it inherits the privileges of {row['role']}", "ALTER ROLE {login} NOINHERIT;"


def _path(row: RowMapping) -> str:
    if row["role"] == row["login"]:
        return f"{row['login']} itself"
    ways = [word for word, holds in (("INHERIT", row["inherits"]), ("SET", row["sets"])) if holds]
    return f"{row['login']} is a member of {row['role']} with {listed(ways)}"
