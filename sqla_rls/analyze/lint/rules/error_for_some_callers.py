"""A policy ends with an error for some callers, in the place of denying them.

A subject that isn't a number makes `auth.user_id()::int` fail (22P02). A member of two organizations makes
`org_id = (SELECT org_id FROM members …)` fail (21000). `current_setting('app.tenant')` fails in a session
that never had the setting (42704), and with `true` it is empty after the first transaction that had it.
Each statement on the table then fails, and monitoring shows errors of the database in the place of denied
requests.

Small worlds decide. The finding is a warning if a caller without claims gets the error, or if rows decide.
It is an info if only a token of another form does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.syntax import caller_parts, required_settings
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

#: No privilege, a statement that takes too long, a lock, and a function that writes.
_NO_ANSWER: Final = ("42501", "57014", "55P03", "25006")
_CALLERS: Final[tuple[tuple[str, str, Level], ...]] = (
    ("a caller without claims", "", "warning"),
    ("a caller without a subject", "{}", "warning"),
    ("a caller whose subject is 'alice'", '{"sub": "alice"}', "info"),
    ("a caller whose subject is '1'", '{"sub": "1"}', "info"),
)
_REMEDY: Final = Remedy(
    text=(
        "Let the expression be NULL in the place of the error: nullif(…, ''), "
        "CASE WHEN pg_input_is_valid(…) THEN … END, = ANY (ARRAY(SELECT …))."
    ),
    python='auth_uid("…") and member_of(…)',
)


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON docs FOR SELECT TO authenticated
          USING (tenant_id = (SELECT current_setting('app.tenant', true)::int));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON docs FOR SELECT TO authenticated
          USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::int));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from _without_setting(database)
    reported = set()
    for one in _of_callers(database):
        reported.add((one.object, one.policy))
        yield one
    for reach in Reaches.of(database).all():
        raising = reach.once("error-for-some-callers", _all_raising)
        if not raising:
            continue
        by_own = {(reach.policy(name), side): one for (name, side), one in raising.items()}
        for policy in reach.relation.policies:
            if (reach.relation.name, policy.name) in reported:
                continue
            for side in ("using", "check"):
                found = by_own.get((policy.name, side))
                if found is None:
                    continue
                case, level = found
                clause = "WITH CHECK" if side == "check" else "USING"
                yield Finding(
                    object=reach.relation.name,
                    kind="table",
                    policy=policy.name,
                    role=reach.role,
                    level=level,
                    text=f"Policy {policy.name} ends with an error for some callers of role {reach.role}.",
                    evidence=[reach.evidence(case, f"{clause} raises an error for {{who}} and {{row}}")],
                    remedy=_REMEDY,
                )
                break


def _of_callers(database: Database) -> Iterator[Finding]:
    """Yield the policies whose parts without a column fail for a caller."""
    tables = [table for table in database.tables if table.row_security and table.policies]
    known: dict[str, tuple[str, str, Level] | str | None] = {}
    for table in tables:
        for policy in table.policies:
            for sql in (policy.using, policy.check):
                failing = [
                    (part, found)
                    for part in (caller_parts(sql) if sql is not None else ())
                    if (found := _failure(database, table, part, known)) is not None
                ]
                if not failing:
                    continue
                part, (who, message, level) = min(failing, key=lambda one: LEVELS.index(one[1][2]))
                yield Finding(
                    object=table.name,
                    kind="table",
                    policy=policy.name,
                    level=level,
                    text=f"Policy {policy.name} ends with an error for {who}.",
                    evidence=[
                        Evidence(
                            kind="counterexample",
                            text=f"{part} raises, for {who}: {message}",
                            data={"expression": part, "caller": who, "error": message},
                        )
                    ],
                    remedy=_REMEDY,
                )
                break


def _failure(
    database: Database, table: Relation, part: str, known: dict[str, tuple[str, str, Level] | str | None]
) -> tuple[str, str, Level] | None:
    """Return the caller for whom *part* raises an error, the message, and the level of the finding."""
    if part not in known:
        known[part] = None
        try:
            for who, claims, level in _CALLERS:
                message = _message(database, part, claims)
                if message is not None:
                    known[part] = (who, message, level)
                    break
        except AnalysisError as error:
            known[part] = f"the connection's role can't evaluate {part}: {error}"
    found = known[part]
    if isinstance(found, str):
        database.note_unknown(table.name, found)
        return None
    return found


def _message(database: Database, part: str, claims: str) -> str | None:
    """Return the message of the error that *part* raises for a caller; None if it raises none of data.

    Raises:
        AnalysisError: the connection's role can't evaluate it.
    """
    settings = {"request.jwt.claims": claims, **dict.fromkeys(read_expression(part).settings, "")}
    try:
        with undone(database.connection):
            for name, value in settings.items():
                database.connection.execute(
                    text("SELECT pg_catalog.set_config(:name, :value, true)"), {"name": name, "value": value}
                )
            # The part is as Postgres printed it in the catalog.
            database.connection.exec_driver_sql(
                f"SELECT {part}",
                execution_options={"no_parameters": True},
            )
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        state = str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None))
        message = str(error.orig).partition("\n")[0]
        if state in _NO_ANSWER:
            raise AnalysisError(message) from None
        return message if state.startswith("22") else None
    return None


def _all_raising(reach: Reach) -> dict[tuple[str, str], tuple[Case, Level]]:
    """Return what ``_raising()`` returns for each part of a policy."""
    parts = [part for part in reach.answers if not isinstance(part, str)]
    return {part: found for part in parts if (found := _raising(reach, part)) is not None}


def _raising(reach: Reach, part: tuple[str, str]) -> tuple[Case, Level] | None:
    """Return the smallest case in which *part* raises an error, and the level of the finding."""
    answers = reach.answers.get(part)
    if answers is None or not any(None in row for row in answers):
        return None
    raising = [
        case
        for case in reach.cases()
        # The app itself writes settings.
        if answers[case.place[0]][case.place[1]] is None and not any(case.actor.settings.values())
    ]
    if not raising:
        return None
    for case in raising:
        is_without_claims = not case.actor.claims
        # The same caller gets an answer about the same row, beside other rows.
        depends_on_rows = any(
            answers[other.place[0]][other.place[1]] is not None
            for other in reach.cases([case.actor])
            if other.row == case.row and other.world.rows != case.world.rows
        )
        if is_without_claims or depends_on_rows:
            return case, "warning"
    return raising[0], "info"


def _without_setting(database: Database) -> Iterator[Finding]:
    """Yield the policies that fail in a session that never had a setting."""
    quote = database.connection.dialect.identifier_preparer.quote
    for table in database.tables:
        if not table.row_security:
            continue
        for policy in table.policies:
            names = sorted(
                {
                    name
                    for sql in (policy.using, policy.check)
                    if sql is not None and "current_setting" in sql
                    for name in required_settings(sql)
                }
            )
            if not names:
                continue
            yield Finding(
                object=table.name,
                kind="table",
                policy=policy.name,
                column=names[0],
                text=f"Policy {policy.name} ends with an error in a session without the setting {names[0]}.",
                evidence=[
                    Evidence(
                        kind="catalog",
                        text=f"current_setting('{names[0]}') without true ends with 42704",
                        data={"settings": names},
                    )
                ],
                remedy=Remedy(
                    sql=(
                        f"ALTER POLICY {quote(policy.name)} ON {table.name} "
                        f"USING (… current_setting('{names[0]}', true));"
                    ),
                    python='func.current_setting("…", True)',
                ),
            )
