"""Lets Postgres decide whether two expressions are equal, by its spelling of both."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.catalog.query import schemas_of, sql_file, trying
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    CalledSequence,
    ObjectKey,
    Policy,
    PolicyKey,
    Privilege,
    SequenceKey,
    Snapshot,
    TableKey,
)

log = autogenerate_log(__name__)


# The WHERE of a query accepts every expression of a policy.  The line break ends a comment.
_SPELL = """
SELECT s.spelling, s.refusal
  FROM (SELECT array_agg(format(E'SELECT %L FROM %I.%I WHERE (%s\\n)', CAST(:mark AS text),
                                e.schema_name, e.table_name, e.expression)
                         ORDER BY e.place) AS statements
          FROM unnest(:schemas, :tables, :expressions) WITH ORDINALITY
               AS e (schema_name, table_name, expression, place)) AS asked,
       pg_temp.sqla_rls_spelling(asked.statements, :readings, :mark) AS s
"""

# The WHERE refuses text that isn't one expression.
_EQUAL = """
SELECT pg_temp.sqla_rls_equal(array_agg(query ORDER BY e.place), :mark)
  FROM ROWS FROM (json_to_recordset(CAST(:pairs AS json))
                  AS (schema_name text, table_name text, declared text, live text))
         WITH ORDINALITY AS e (schema_name, table_name, declared, live, place),
       format(E'SELECT pg_catalog.bool_or(DISTINCT (%s\\n) ORDER BY (%s\\n)) FROM %I.%I WHERE (%s\\n)',
              e.live, e.declared, e.schema_name, e.table_name, e.declared) AS query
"""


# Postgres compares the shapes, and answers with numbers: a shape takes kilobytes.
_SHAPES = """
SELECT s.place, dense_rank() OVER (ORDER BY s.shape COLLATE pg_catalog."C") AS number
  FROM (SELECT array_agg(format(E'SELECT FROM %I.%I WHERE (%s\\n)', e.schema_name, e.table_name, e.expression)
                         ORDER BY e.place) AS statements
          FROM unnest(:schemas, :tables, :expressions) WITH ORDINALITY
               AS e (schema_name, table_name, expression, place)) AS asked,
       pg_temp.sqla_rls_shapes(asked.statements, :mark) AS s
"""


class _Expression(NamedTuple):
    table: TableKey
    sql: str


def normalize(
    connection: Connection,
    live: DatabaseSnapshot,
    declared: Snapshot,
    *,
    recreated: Collection[PolicyKey] = (),
    new_defaults: Collection[SequenceKey] = (),
) -> Snapshot:
    """Return *declared*, with the text of *live* for each equal expression.

    Then two policies are equal if their values are.  An expression that Postgres can't read keeps its
    declared text, and counts as changed.  So do the policies *recreated*, whose columns will change.  The
    sequences are those of *live*, except for new tables and for columns with *new_defaults*.
    """
    compared = {
        key: policy
        for key, policy in declared.policies.items()
        if key.table in live.row_security and key not in recreated
    }
    same = _same(connection, live, compared)
    gone: dict[TableKey, list[Policy]] = {}
    for key, policy in live.policies.items():
        if key not in declared.policies:
            gone.setdefault(policy.table, []).append(policy)

    def text_of(live_sql: str | None, table: TableKey, sql: str | None) -> str | None:
        return live_sql if sql is not None and live_sql in same.get(_Expression(table, sql), ()) else sql

    def as_in(other: Policy, policy: Policy) -> Policy:
        """Return *policy* with the text of *other*, for equal parts."""
        roles = policy.roles
        if roles != other.roles and other.roles == {live.role_keywords.get(role, role) for role in roles}:
            roles = other.roles
        using = text_of(other.using, policy.table, policy.using)
        with_check = text_of(other.with_check, policy.table, policy.with_check)
        if (
            (policy.name, policy.permissive, policy.command, roles, using, with_check)
            == (other.name, other.permissive, other.command, other.roles, other.using, other.with_check)
        ) and (policy.imply_privileges, policy.comment) == (other.imply_privileges, other.comment):
            return other
        return replace(policy, roles=roles, using=using, with_check=with_check)

    policies = dict(declared.policies)
    for key, policy in compared.items():
        if live_policy := live.policies.get(key):
            policies[key] = as_in(live_policy, policy)
            continue
        for other in gone.get(policy.table, ()):
            if (renamed := as_in(other, policy)) == replace(other, name=policy.name):
                policies[key] = renamed
    return _with_sequences(connection, live, replace(declared, policies=policies), new_defaults)


def _with_sequences(
    connection: Connection, live: DatabaseSnapshot, declared: Snapshot, new_defaults: Collection[SequenceKey]
) -> Snapshot:
    """Return *declared* with the sequences of *live*, by the columns that own them."""

    def is_new(key: SequenceKey) -> bool:
        return key.table not in live.row_security or key in new_defaults

    def named(key: SequenceKey) -> SequenceKey:
        return live.sequence_names.get(key.table, key) if key.column is None else key

    def privilege(one: Privilege) -> Privilege:
        if one.object_type != "SEQUENCE" or one.column is not None:
            return one
        schema, name, column = named(SequenceKey(one.schema, one.name))
        return one._replace(schema=schema, name=name, column=column)

    def managed(one: ObjectKey) -> ObjectKey:
        return ObjectKey("SEQUENCE", *named(SequenceKey(*one[1:])).table) if one[0] == "SEQUENCE" else one

    called = set(live.called_sequences)
    called.update(
        CalledSequence(one.table, named(one.sequence)) for one in declared.called_sequences if not one.default
    )
    by_text = [one for one in declared.called_sequences if one.default and is_new(one.sequence)]
    for one, found in zip(by_text, _called(connection, live, by_text), strict=True):
        # The column identifies a sequence that doesn't exist yet.
        called.update([CalledSequence(one.table, named(key)) for key in found] or [one])
    return replace(
        declared,
        sequences=live.sequences | {one for one in declared.sequences if one.table not in live.row_security},
        identity_sequences=live.identity_sequences | set(filter(is_new, declared.identity_sequences)),
        called_sequences=frozenset(called),
        privileges=frozenset(map(privilege, declared.privileges)),
        managed_objects=frozenset(map(managed, declared.managed_objects)),
    )


def _called(
    connection: Connection, live: DatabaseSnapshot, calls: Collection[CalledSequence]
) -> list[set[SequenceKey]]:
    """Return the existing sequences that the default of each of *calls* calls."""
    found: list[set[SequenceKey]] = [set() for _ in calls]
    if calls:
        query = text("SELECT * FROM pg_temp.sqla_rls_called(:defaults)").bindparams(
            bindparam("defaults", type_=ARRAY(Text()))
        )
        with trying(connection, "the migration looks up the sequences of new columns"):
            connection.execute(text(sql_file("find_called_sequences")))
            for row in connection.execute(query, {"defaults": [one.default for one in calls]}):
                found[row.place - 1].add(
                    SequenceKey(*TableKey.of(row.schema_name, row.name, live.default_schema))
                )
    return found


def _same(
    connection: Connection, live: DatabaseSnapshot, compared: Mapping[PolicyKey, Policy]
) -> dict[_Expression, set[str]]:
    """Return the equal expressions on the same table in *live*, for each expression of *compared*."""
    live_expressions: dict[TableKey, set[str]] = {}
    for key, policy in live.policies.items():
        live_expressions.setdefault(key.table, set()).update(filter(None, _expressions(policy)))
    # The live expression of the policy with the same name; empty if there is none, as after a rename.
    wanted: dict[_Expression, set[str]] = {}
    for key, policy in compared.items():
        if key.table not in live_expressions:
            continue
        for sql, live_sql in zip(_expressions(policy), _expressions(live.policies.get(key)), strict=True):
            if sql is not None:
                found = wanted.setdefault(_Expression(key.table, sql), set())
                if live_sql:
                    found.add(live_sql)
    same = {one: {one.sql} & live_expressions[one.table] for one in wanted}
    pairs = [(one, live_sql) for one, found in wanted.items() for live_sql in found - same[one]]
    for one, live_sql in _equal(connection, live.default_schema, pairs):
        same[one].add(live_sql)

    def is_settled(one: _Expression) -> bool:
        return wanted[one] <= same[one] if wanted[one] else bool(same[one])

    refused: set[_Expression] = set()
    # One reading settles most spellings, since those of the catalog are read once; two settle all.
    for readings in (1, 2):
        asked = {one for one in wanted if one not in refused and not is_settled(one)}
        candidates = {
            _Expression(table, sql)
            for table in {one.table for one in asked}
            for sql in live_expressions[table]
        }
        spellings = _spell(connection, live.default_schema, asked | candidates, readings)
        refused |= asked - spellings.keys()
        by_spelling: dict[tuple[TableKey, str], set[str]] = {}
        for one, spelling in spellings.items():
            if one in candidates:
                by_spelling.setdefault((one.table, spelling), set()).add(one.sql)
        for one, spelling in spellings.items():
            if one in asked:
                same[one] |= by_spelling.get((one.table, spelling), set())
    # Postgres spells those with other aliases in another way.
    others = {
        one: (wanted[one] or live_expressions[one.table]) - same[one]
        for one in wanted.keys() - refused
        if not is_settled(one)
    }
    shapes = _shapes(connection, live.default_schema, others)
    for one in others.keys() & shapes.keys():
        same[one] |= {sql for sql in others[one] if shapes.get(_Expression(one.table, sql)) == shapes[one]}
    return same


def _expressions(policy: Policy | None) -> tuple[str | None, str | None]:
    return (policy.using, policy.with_check) if policy else (None, None)


def _equal(
    connection: Connection, default_schema: str, pairs: Sequence[tuple[_Expression, str]]
) -> list[tuple[_Expression, str]]:
    """Return those of *pairs*, an expression and one in the database, that Postgres has found equal.

    This takes a tenth of the time of ``_spell()``, which decides the others.
    """
    if not pairs:
        return []
    # JSON takes a fraction of the time that psycopg takes for arrays.
    asked = json.dumps(
        [
            {
                "schema_name": one.table.schema or default_schema,
                "table_name": one.table.name,
                "declared": one.sql,
                "live": live_sql,
            }
            for one, live_sql in pairs
        ],
        # Only a database in UTF8 reads other escapes.
        ensure_ascii=False,
    )
    places: list[int] = []
    with trying(connection):
        connection.execute(text(sql_file("equal_expressions")))
        places = connection.scalars(text(_EQUAL), {"pairs": asked, "mark": f"m{os.urandom(8).hex()}_"}).one()
    return [pairs[place - 1] for place in places]


def _shapes(
    connection: Connection, default_schema: str, expressions: Mapping[_Expression, Collection[str]]
) -> dict[_Expression, int]:
    """Return a number for each of *expressions*, and of those beside it; equal shapes have the same number.

    The shape is the tree that Postgres stores, without the aliases of relations and output columns.  An
    expression to which these matter has none.
    """
    asked = list(
        {
            *expressions,
            *(_Expression(one.table, sql) for one, others in expressions.items() for sql in others),
        }
    )
    found: dict[_Expression, int] = {}
    if asked:
        arrays = {
            "schemas": schemas_of((one.table for one in asked), default_schema),
            "tables": [one.table.name for one in asked],
            "expressions": [one.sql for one in asked],
        }
        query = text(_SHAPES).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
        with trying(connection):
            # text() would take the fields of a tree for parameters.
            connection.exec_driver_sql(
                sql_file("shape_expressions"), execution_options={"no_parameters": True}
            )
            mark = f"m{os.urandom(16).hex()}"
            rows = connection.execute(query, {**arrays, "mark": mark})
            found = {asked[row.place - 1]: row.number for row in rows}
    return found


def _spell(
    connection: Connection, default_schema: str, expressions: Collection[_Expression], readings: int
) -> dict[_Expression, str]:
    """Return Postgres's spelling of each expression, without those that it refuses."""
    if not expressions:
        return {}
    asked = list(expressions)
    arrays = {
        "schemas": schemas_of((one.table for one in asked), default_schema),
        "tables": [one.table.name for one in asked],
        "expressions": [one.sql for one in asked],
    }
    query = text(_SPELL).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    answers: list[tuple[str | None, str | None]] = []
    with trying(connection, "every policy counts as changed"):
        connection.execute(text(sql_file("spell_expressions")))
        rows = connection.execute(query, {**arrays, "readings": readings, "mark": os.urandom(32).hex()})
        answers = [(row.spelling, row.refusal) for row in rows]
    if not answers:
        return {}
    for one, (_, refusal) in zip(asked, answers, strict=True):
        if refusal is not None:
            log.warning(
                "an expression on %r counts as changed: Postgres can't read it before the migration (%s): %s",
                one.table.name,
                refusal,
                one.sql,
            )
    return {one: spelling for one, (spelling, _) in zip(asked, answers, strict=True) if spelling is not None}
