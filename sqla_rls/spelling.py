"""Whether two expressions are the same: Postgres spells both, and decides."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.catalog import PIN, Live, undone
from sqla_rls.objects import Policy, Snapshot, TableKey

# A view takes an ACCESS SHARE lock, where CREATE POLICY would take ACCESS EXCLUSIVE.  Some spellings
# settle only when read back once more, hence the second view.  The error at the end undoes both, and
# gives their locks back.  What Postgres refuses to spell has no spelling: it equals nothing.
_SPELLING = f"""
CREATE FUNCTION pg_temp.sqla_rls_spelling(schema_name text, table_name text, expression text) RETURNS text
LANGUAGE plpgsql AS $spelling$
DECLARE
  answer text;
BEGIN
  EXECUTE format(E'CREATE TEMPORARY VIEW sqla_rls_1 AS SELECT (%s\\n) AS x FROM %I.%I',
                 expression, schema_name, table_name);
  PERFORM {PIN.strip().removeprefix("SELECT ")};
  EXECUTE format('CREATE TEMPORARY VIEW sqla_rls_2 AS %s',
                 pg_catalog.pg_get_viewdef('pg_temp.sqla_rls_1'::regclass));
  answer := pg_catalog.pg_get_viewdef('pg_temp.sqla_rls_2'::regclass);
  RAISE EXCEPTION USING ERRCODE = 'RLS02';
EXCEPTION
  WHEN SQLSTATE 'RLS02' THEN RETURN answer;
  WHEN OTHERS THEN RETURN NULL;
END $spelling$
"""  # noqa: S608 - nothing in it comes from outside

_SPELL = """
SELECT pg_temp.sqla_rls_spelling(e.schema_name, e.table_name, e.expression)
  FROM unnest(:schemas, :tables, :expressions) WITH ORDINALITY
       AS e (schema_name, table_name, expression, place)
 ORDER BY e.place
"""


def align(connection: Connection, live: Live, declared: Snapshot) -> Snapshot:
    """*declared*, with what Postgres takes for the same as in *live* written as it stands in *live*.

    Afterwards two policies are equal when their values are.  What Postgres refuses to spell stays as
    declared, and so counts as changed.
    """
    ours = [policy for policy in declared.policies.values() if policy.table in live.row_security]
    tables = {policy.table for policy in ours}
    theirs = [policy for policy in live.policies.values() if policy.table in tables]
    spellings = _spell(connection, live.default_schema, {*_expressions(ours), *_expressions(theirs)})

    by_spelling: dict[tuple[TableKey, str], str] = {}
    for table, expression in _expressions(theirs):
        if (spelling := spellings[table, expression]) is not None:
            by_spelling.setdefault((table, spelling), expression)

    def aligned(table: TableKey, expression: str | None, twin: str | None) -> str | None:
        spelling = expression and spellings[table, expression]
        if spelling is None or expression is None:
            return expression
        if twin is not None and spellings[table, twin] == spelling:
            return twin
        return by_spelling.get((table, spelling), expression)

    policies = dict(declared.policies)
    for policy in ours:
        twin = live.policies.get(policy.key)
        roles = frozenset(live.role_keywords.get(role, role) for role in policy.roles)
        policies[policy.key] = replace(
            policy,
            roles=roles if twin and roles == twin.roles else policy.roles,
            using=aligned(policy.table, policy.using, twin.using if twin else None),
            with_check=aligned(policy.table, policy.with_check, twin.with_check if twin else None),
        )
    return replace(declared, policies=policies, sequences={**declared.sequences, **live.sequences})


def _expressions(policies: Collection[Policy]) -> Iterator[tuple[TableKey, str]]:
    for policy in policies:
        for expression in (policy.using, policy.with_check):
            if expression is not None:
                yield policy.table, expression


def _spell(
    connection: Connection, default_schema: str, expressions: Collection[tuple[TableKey, str]]
) -> dict[tuple[TableKey, str], str | None]:
    """How Postgres spells each expression over its table; None for what it refuses."""
    if not expressions:
        return {}
    asked = sorted(expressions, key=str)
    with undone(connection):
        connection.execute(text(_SPELLING))
        answers = connection.execute(
            text(_SPELL).bindparams(
                *(bindparam(name, type_=ARRAY(Text())) for name in ("schemas", "tables", "expressions"))
            ),
            {
                "schemas": [table.schema or default_schema for table, _ in asked],
                "tables": [table.name for table, _ in asked],
                "expressions": [expression for _, expression in asked],
            },
        ).scalars()
        return dict(zip(asked, answers, strict=True))
