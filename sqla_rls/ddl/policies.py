"""Statements for policies and the flags of row security."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import (
    dollar_quoted,
    dollar_tag,
    filled_script,
    made_twice,
    qualified,
    role_list,
    sql,
)
from sqla_rls.snapshot import Policy, PolicyKey, TableKey


class CreatePolicy(ExecutableDDLElement):
    """Creates a policy; if an equal policy with its name exists, it does nothing, with a notice."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class AlterPolicy(ExecutableDDLElement):
    """Sets the given parts; ALTER POLICY can't change the command or the kind, or remove an expression."""

    def __init__(
        self,
        key: PolicyKey,
        *,
        roles: Iterable[str] | None = None,
        using: str | None = None,
        with_check: str | None = None,
    ) -> None:
        self.key, self.roles, self.using, self.with_check = key, roles, using, with_check


class RenamePolicy(ExecutableDDLElement):
    def __init__(self, key: PolicyKey, new_name: str) -> None:
        self.key, self.new_name = key, new_name


class DropPolicy(ExecutableDDLElement):
    def __init__(self, key: PolicyKey, *, if_exists: bool = False) -> None:
        self.key, self.if_exists = key, if_exists


class AlterRowSecurity(ExecutableDDLElement):
    """Sets a flag of row security; *action* is ENABLE, DISABLE, FORCE or NO FORCE."""

    def __init__(self, table: TableKey, action: str) -> None:
        self.table, self.action = table, action


class LiftForce(ExecutableDDLElement):
    """Sets NO FORCE on a table with FORCE; *restore* sets FORCE again on a table where this was done."""

    def __init__(self, table: TableKey, *, restore: bool = False) -> None:
        self.table, self.restore = table, restore


@compiles(CreatePolicy, "postgresql")
def _create_policy(create: CreatePolicy, compiler: DDLCompiler, **kw: Any) -> str:
    policy = create.policy
    parts = [f"CREATE POLICY {_policy(policy.key, compiler)}"]
    if not policy.permissive:
        parts.append("AS RESTRICTIVE")
    parts.append(f"FOR {policy.command}")
    parts.append(f"TO {role_list(policy.roles, compiler)}")
    expressions = _expressions(policy.using, policy.with_check, compiler)
    statement = " ".join(parts + expressions)
    drop = f"DROP POLICY {_policy(policy.key, compiler)}"
    words = {
        "table": dollar_quoted(qualified(policy.table, compiler)),
        "name": dollar_quoted(sql(policy.name, compiler)),
        "drop": dollar_quoted(drop),
        "statement": dollar_quoted(_policy_made_twice(policy.key, statement, drop, compiler)),
        "subject": dollar_quoted(_subject(policy.key, compiler)),
    }
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("create_policy.sql", compiler, statement, tag=tag, **words)


@compiles(AlterPolicy, "postgresql")
def _alter_policy(alter: AlterPolicy, compiler: DDLCompiler, **kw: Any) -> str:
    parts = [f"ALTER POLICY {_policy(alter.key, compiler)}"]
    if alter.roles is not None:
        parts.append(f"TO {role_list(alter.roles, compiler)}")
    expressions = _expressions(alter.using, alter.with_check, compiler)
    statement = " ".join(parts + expressions)
    if not expressions:
        return statement
    return _policy_made_twice(alter.key, statement, None, compiler, plain=statement)


@compiles(RenamePolicy, "postgresql")
def _rename_policy(rename: RenamePolicy, compiler: DDLCompiler, **kw: Any) -> str:
    new = compiler.preparer.quote(rename.new_name)
    statement = f"ALTER POLICY {_policy(rename.key, compiler)} RENAME TO {new}"
    words = {
        "table": dollar_quoted(qualified(rename.key.table, compiler)),
        "old": dollar_quoted(sql(rename.key.name, compiler)),
        "new": dollar_quoted(sql(rename.new_name, compiler)),
        "statement": dollar_quoted(statement),
    }
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("rename_policy.sql", compiler, statement, tag=tag, **words)


@compiles(DropPolicy, "postgresql")
def _drop_policy(drop: DropPolicy, compiler: DDLCompiler, **kw: Any) -> str:
    return f"DROP POLICY {'IF EXISTS ' if drop.if_exists else ''}{_policy(drop.key, compiler)}"


@compiles(AlterRowSecurity, "postgresql")
def _alter_row_security(alter: AlterRowSecurity, compiler: DDLCompiler, **kw: Any) -> str:
    return f"ALTER TABLE {qualified(alter.table, compiler)} {alter.action} ROW LEVEL SECURITY"


@compiles(LiftForce, "postgresql")
def _lift_force(lift: LiftForce, compiler: DDLCompiler, **kw: Any) -> str:
    table = qualified(lift.table, compiler)
    name = dollar_quoted(table)
    script = "restore_force.sql" if lift.restore else "lift_force.sql"
    plain = f"ALTER TABLE {table} {'' if lift.restore else 'NO '}FORCE ROW LEVEL SECURITY"
    return filled_script(script, compiler, plain, tag=dollar_tag(name, "sqla_rls"), table=table, name=name)


def _policy(key: PolicyKey, compiler: DDLCompiler) -> str:
    return f"{compiler.preparer.quote(key.name)} ON {qualified(key.table, compiler)}"


def _subject(key: PolicyKey, compiler: DDLCompiler) -> str:
    """Return the name of the policy for errors."""
    return f"policy {sql(key.name, compiler)} on {qualified(key.table, compiler)}"


def _policy_made_twice(
    key: PolicyKey, statement: str, undo: str | None, compiler: DDLCompiler, plain: str = ""
) -> str:
    table = qualified(key.table, compiler)
    name = compiler.sql_compiler.render_literal_value(key.name, String())
    return made_twice(
        statement,
        undo=undo,
        plain=plain,
        subject=_subject(key, compiler),
        stored="SELECT concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))"  # noqa: S608
        f" FROM pg_catalog.pg_policy WHERE polrelid = {dollar_quoted(table)}::regclass AND polname = {name}",
        compiler=compiler,
    )


def _expressions(using: str | None, with_check: str | None, compiler: DDLCompiler) -> list[str]:
    # The line break ends a comment at the end of the expression.
    return [
        f"{clause} ({sql(expression, compiler)}{chr(10) if '--' in expression else ''})"
        for clause, expression in (("USING", using), ("WITH CHECK", with_check))
        if expression is not None
    ]
