"""The changes that may make a policy faster: a form of it, an index, a promise of a function."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.plans.forms import calls, compared, faster_forms
from sqla_rls.analyze.worlds.objects import PolicyText, Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.statements import quoted
from sqla_rls.snapshot import PUBLIC

Kind: TypeAlias = Literal[
    "function_per_row",
    "slow_membership",
    "column_in_expression",
    "missing_index",
    "volatile_function",
    "several_permissive_policies",
]
#: Postgres cuts longer names.
_LONGEST_NAME: Final = 63
_VOLATILE: Final = text(
    "SELECT DISTINCT p.proname FROM pg_catalog.pg_proc AS p "
    "WHERE p.provolatile = 'v' AND p.proname = ANY (:names)"
).bindparams(bindparam("names", type_=ARRAY(Text())))
_LEADING: Final = text(
    "SELECT a.attname FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid "
    "JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname IN ('btree', 'hash') "
    "JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE i.indrelid = CAST(:oid AS pg_catalog.oid) AND i.indpred IS NULL AND i.indisvalid"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a database that may make its policies faster.

    Attributes:
        kind: the reason.
        relation: the table, ``schema.table`` as Postgres quotes it.
        policy: the policy that changes; None for an index or a function.
        column: the column that an index leads with.
        function: the signature of the function that changes.
        statement: the change as SQL.
        operation: the change as an operation of Alembic.
        hint: the change of a model.
    """

    kind: Kind
    relation: str
    policy: str | None = None
    column: str | None = None
    function: str | None = None
    statement: str
    operation: str
    hint: str

    @property
    def keeps_access(self) -> bool:
        """Whether the change can't open or close anything."""
        return self.statement.startswith("CREATE INDEX ")


def possible_changes(
    connection: Connection,
    schema: Schema,
    relation: Relation,
    policies: Sequence[PolicyText],
    own: Collection[str],
) -> Iterator[Change]:
    """Yield the changes that may make *policies* of *relation* faster.

    Args:
        connection: a connection to the database.
        schema: the database.
        relation: the table.
        policies: its policies, as far as they count.
        own: the relations in which an index may be missing.
    """
    expressions = [policy.using for policy in policies if policy.using is not None]
    names = sorted({name for expression in expressions for name in calls(expression)})
    volatile = set(connection.scalars(_VOLATILE, {"names": names})) if names else set[str]()
    types = {column.name: column.type for column in relation.columns.values()}
    for policy in policies:
        if policy.using is None:
            continue
        for kind, form in faster_forms(policy.using, relation.relname, types, volatile):
            yield _altered(kind, relation, policy, form)
    yield from _indexes(connection, schema, relation, expressions, own)
    for edge in schema.edges.get(relation.name, ()):
        function = schema.functions.get(edge.calls or "")
        if function is not None and edge.part == "policy" and function.name in volatile:
            statement = f"ALTER FUNCTION {function.signature} STABLE"
            yield Change(
                kind="volatile_function",
                relation=relation.name,
                function=function.signature,
                statement=statement,
                operation=f"op.execute({statement!r})",
                hint=f"sql_function({function.name!r}, …, volatility='STABLE')",
            )
    permissive = [policy for policy in policies if policy.permissive]
    if len(permissive) > 1:
        yield from (_dropped(relation, policy) for policy in permissive)


def _altered(kind: Kind, relation: Relation, policy: PolicyText, form: str) -> Change:
    hints: dict[Kind, str] = {
        "function_per_row": "auth_uid(column) emits it; in a text, write (SELECT f()) for f()",
        "slow_membership": "member_of(…) emits it; in a text, write column = ANY (ARRAY(SELECT …))",
        "column_in_expression": "cast the value, not the column",
    }
    return Change(
        kind=kind,
        relation=relation.name,
        policy=policy.name,
        statement=f"ALTER POLICY {quoted(policy.name)} ON {relation.name} USING ({form})",
        operation=(
            f"op.alter_policy({policy.name!r}, {relation.relname!r}, using={form!r}{_schema(relation)})"
        ),
        hint=hints[kind],
    )


def _dropped(relation: Relation, policy: PolicyText) -> Change:
    return Change(
        kind="several_permissive_policies",
        relation=relation.name,
        policy=policy.name,
        statement=f"DROP POLICY {quoted(policy.name)} ON {relation.name}",
        operation=f"op.drop_policy({policy.name!r}, {relation.relname!r}{_schema(relation)})",
        hint=f"remove Policy({policy.name!r}, …): another policy admits its rows",
    )


def _indexes(
    connection: Connection,
    schema: Schema,
    relation: Relation,
    expressions: Sequence[str],
    own: Collection[str],
) -> Iterator[Change]:
    by_name = {(one.schema, one.relname): one for one in schema.relations.values()}
    found = [one for each in expressions for one in compared(each, relation.schema, relation.relname)]
    for one in dict.fromkeys(found):
        table = by_name.get((one.schema, one.table))
        if table is None or not table.has_rows or table.name not in own:
            continue
        if one.column is not None:
            if one.column not in table.columns:
                continue
            if one.column in connection.scalars(_LEADING, {"oid": str(table.oid)}).all():
                continue
        yield _index(table, one.expression, one.column)


def _index(table: Relation, expression: str, column: str | None) -> Change:
    words = column or "_".join(name for name in table.columns if name in expression) or "expression"
    name = f"ix_{table.relname}_{words}".encode()[:_LONGEST_NAME].decode(errors="ignore")
    indexed = repr(column) if column is not None else f"sa.text({f'({expression})'!r})"
    part = quoted(column) if column is not None else f"({expression})"
    return Change(
        kind="missing_index" if column is not None else "column_in_expression",
        relation=table.name,
        column=column,
        statement=f"CREATE INDEX ON {table.name} ({part})",
        operation=f"op.create_index({name!r}, {table.relname!r}, [{indexed}]{_schema(table)})",
        hint=(
            f"{column} = mapped_column(…, index=True)" if column else f"Index({name!r}, text({expression!r}))"
        ),
    )


def _schema(relation: Relation) -> str:
    return "" if relation.schema == "public" else f", schema={relation.schema!r}"


def counted_policies(relation: Relation, role: str, command: str, held: Collection[str]) -> list[PolicyText]:
    """Return the policies of *relation* that count for *command* of *role*.

    Args:
        relation: the table.
        role: the role.
        command: the command.
        held: the policies that are for the role.
    """
    return [
        policy
        for policy in relation.policies
        if policy.command in (command, "ALL")
        and (policy.name in held or role in policy.roles or PUBLIC in policy.roles)
    ]
