"""A SECURITY DEFINER function that callers may run reads protected tables, and doesn't filter by the caller.

Row security doesn't hold for the owner of the function, so that the body sees all rows. The result is the
same for each caller. A function that filters by the caller, such as a membership test, isn't found.

A function that asks who calls, such as `IF auth.user_id() IS NULL THEN RAISE …`, may show the rows of others
all the same. Small worlds decide: callers whom no row names call it. The function is found if they get values
of a row that is someone else's. It isn't found if it filters by the caller, or shows sums. Nor is it found if
it shows keys of rows that the caller may read, such as public teams. The same holds if the caller needs a
text of the row, such as the token of a link. The finding is a warning if the caller needs the id of the
owner. It is an info if the caller needs a key that isn't a number: such a key can't be guessed.

A view or a function that the body reads counts, too. It may have another owner, whose rights it has.

Row security may hold for the owner by other policies than those of the callers, such as
`TO reporting USING (true)`. Then small worlds decide: the function is found if these policies admit a row
that those of a caller don't. The finding is a warning if callers have no privilege on the tables: then the
rows may be what they are meant to see.

A trigger runs its function for each caller who may write the table. Small worlds decide there: the function
is found if it shows a caller values of a row that policies hide. It shows them in a table or view that the
caller reads, in the new row, or in the message of an error. An audit of the new row, a counter or a check
isn't found. The finding is a warning if the caller has no privilege on the table. It is one, too, if the
caller has a value of the hidden row, such as its key.

PostgreSQL's parser reads the body. A body that runs a text or a prepared statement, such as EXECUTE, may
reach any table by any command: it is unknown if the owner reaches more rows than its callers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import RowMapping

from sqla_rls.analyze.lint.callers import PastRowSecurity, function_asks, past_row_security
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.function_reads import FunctionReads, shown_by_function
from sqla_rls.analyze.lint.other_policies import OtherPolicies, Undecided, opaque_rights, other_policies
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.trigger_reads import callers_of_trigger, shown_by_trigger
from sqla_rls.analyze.lint.triggers import triggers_by_function


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, body text);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        CREATE FUNCTION latest_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = '' AS 'SELECT * FROM public.docs';
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, body text);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        CREATE FUNCTION latest_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = '' AS 'SELECT * FROM public.docs WHERE owner_id = auth.user_id()';
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for row in database.fetch("definer_functions"):
        signature = row["signature"]
        roles = [one.name for one in database.callers if database.may_execute(one.name, signature)]
        if not roles or not database.has_schema_of(signature):
            continue
        past = past_row_security(database, signature, row["owner"])
        if function_asks(database.schema, signature):
            if past is not None and (shown := shown_by_function(database, row, roles)) is not None:
                yield _to_strangers(row, past, roles, shown)
        elif past is not None:
            yield _past(row, past, roles)
        else:
            found = list(_by_others(database, row, roles))
            yield from found
            if not found:
                _note_opaque(database, signature, roles)
    yield from _by_triggers(database)


def _by_triggers(database: Database) -> Iterator[Finding]:
    """Yield the trigger functions that show rows which policies hide from those who fire them."""
    for signature, rows in triggers_by_function(database):
        roles = callers_of_trigger(database, rows)
        if not roles or not database.has_schema_of(signature):
            continue
        found = shown_by_trigger(database, signature, rows)
        if found is None:
            _note_opaque(database, signature, roles)
            continue
        yield _finding(
            rows[0],
            level=found.level,
            text=(
                f"Trigger function {signature} shows its callers values of {found.table} that policies hide."
            ),
            evidence=[*found.evidence],
            role=found.role,
            remedy=f"Or let it read rows of the caller only, or revoke {found.command} from callers.",
        )


def _to_strangers(
    row: RowMapping, past: PastRowSecurity, roles: Sequence[str], shown: FunctionReads
) -> Finding:
    return _finding(
        row,
        level=shown.level,
        text=f"Function {row['signature']} asks who calls, and shows rows of {shown.table} to each caller.",
        evidence=[
            shown.evidence,
            Evidence(
                kind="catalog",
                text=(
                    f"{listed(roles)} may execute it; row security of {listed(past.tables)} doesn't hold for "
                    f"{past.whose}"
                ),
                data={
                    "roles": roles,
                    "tables": past.tables,
                    "owner": row["owner"],
                    "acts_as": past.roles,
                },
            ),
        ],
        role=shown.role,
    )


def _past(row: RowMapping, past: PastRowSecurity, roles: Sequence[str]) -> Finding:
    read = past.tables
    return _finding(
        row,
        level="error" if _shows_rows(row) else "warning",
        text=f"Function {row['signature']} reads {listed(read)} past row security, for each caller alike.",
        evidence=[
            Evidence(
                kind="catalog",
                text=(
                    f"{listed(roles)} may execute it; row security of {listed(read)} doesn't hold for "
                    f"{past.whose}; its body reads no claim"
                ),
                data={"roles": roles, "tables": read, "owner": row["owner"], "acts_as": past.roles},
            )
        ],
    )


def _by_others(database: Database, row: RowMapping, roles: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding if policies of other roles admit more rows than those of the callers."""
    found: list[OtherPolicies] = []
    for role in roles:
        one = other_policies(database, row["signature"], role)
        if isinstance(one, Undecided):
            database.note_unknown(row["signature"], one.reason, kind="function", role=role)
        elif one is not None:
            found.append(one)
    if not found:
        return
    tables = sorted({table for one in found for table in one.tables})
    readers = sorted({reader for one in found for reader in one.readers})
    callers = [one.role for one in found]
    # Without a privilege on the table, the rows may be what callers are meant to see.
    is_beside = any(
        one.role in database.roles_with_privileges(table) for one in found for table in one.tables
    )
    yield _finding(
        row,
        level="error" if _shows_rows(row) and is_beside else "warning",
        text=(
            f"Function {row['signature']} reaches rows of {listed(tables)} that the policies of its callers "
            "don't admit."
        ),
        evidence=[
            found[0].evidence,
            Evidence(
                kind="catalog",
                text=(
                    f"{listed(callers)} may execute it; it has the rights of {listed(readers)}, to whom "
                    f"other policies of {listed(tables)} apply; its body reads no claim"
                ),
                data={"roles": callers, "tables": tables, "owner": row["owner"], "acts_as": readers},
            ),
        ],
    )


def _note_opaque(database: Database, signature: str, roles: Sequence[str]) -> None:
    """Note a body that may reach any table by SQL that no parser reads."""
    for role in roles:
        if rights := opaque_rights(database, signature, role):
            reason = f"no parser reads the SQL that it runs with the rights of {listed(rights)}"
            database.note_unknown(signature, reason, kind="function", role=role)
            return


def _shows_rows(row: RowMapping) -> bool:
    return row["returns_set"] or row["kind"] == "c" or row["returns"] in ("record", "json", "jsonb")


def _finding(
    row: RowMapping,
    *,
    level: Level,
    text: str,
    evidence: list[Evidence],
    role: str | None = None,
    remedy: str = "Or filter by the caller in the body, or revoke EXECUTE from callers and PUBLIC.",
) -> Finding:
    return Finding(
        object=row["signature"],
        kind="function",
        role=role,
        level=level,
        text=text,
        evidence=evidence,
        remedy=Remedy(
            sql=f"ALTER FUNCTION {row['signature']} SECURITY INVOKER;",
            python="sql_function(…, security_definer=False)",
            text=remedy,
        ),
    )
