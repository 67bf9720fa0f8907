"""Adapts operations to all databases that run the revision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from alembic.operations import MigrateOperation

from sqla_rls.alembic.autogenerate.history import History, Made
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.snapshot import (
    PUBLIC,
    ROLE_KEYWORDS,
    TableKey,
)


def for_other_databases(
    operations: Iterable[MigrateOperation],
    default_schema: str,
    roles: Collection[str] | None,
    heirs: Collection[TableKey],
) -> Iterator[MigrateOperation]:
    """Yield *operations* in a form that runs in another default schema, and in a database without drift.

    *roles* are the roles that every database has after the migrations.  *heirs* are tables that a database
    may lack.
    """
    for operation in operations:
        if isinstance(operation, Call):
            for call in (operation, operation.undo):
                if call.kwargs.get("object_type") == "SCHEMA" and call.args[1] == default_schema:
                    call.args = (call.args[0], None, *call.args[2:])
                elif call.function.endswith("_default_privileges") and (
                    call.kwargs.get("schema") == default_schema
                ):
                    del call.kwargs["schema"]
                    call.kwargs["current_schema"] = True
            if operation.function in ("revoke", "drop_policy", "revoke_role") and roles is not None:
                undo = operation.undo
                named = undo.kwargs.get("roles") or (
                    undo.args if undo.function == "grant_role" else undo.args[2]
                )
                if {*named} - {*roles, PUBLIC} - ROLE_KEYWORDS:
                    undo.kwargs["if_roles_exist"] = True
            if (
                operation.function == "revoke"
                and TableKey(operation.kwargs.get("schema"), operation.args[1]) in heirs
                and "object_type" not in operation.kwargs
            ):
                operation.undo.kwargs.pop("if_roles_exist", None)
                operation.undo.kwargs["if_exists"] = True
        yield operation


def without_undoing_repairs(
    operations: Iterable[MigrateOperation], past: History, created: Collection[TableKey], default_schema: str
) -> Iterator[MigrateOperation]:
    """Yield *operations* without the downgrade of those that restore the work of an earlier revision.

    Another database hasn't lost that work, and the downgrade would remove it.
    """
    recreated: set[Made] = set()
    made: set[Made] | None = None
    for operation in operations:
        if isinstance(operation, Call) and operation.function in (
            "create_policy",
            "drop_policy",
            "enable_row_level_security",
            "force_row_level_security",
        ):
            is_policy = operation.function.endswith("policy")
            key = TableKey(operation.kwargs.get("schema"), operation.args[is_policy])
            one: Made = (operation.function, key, operation.args[0] if is_policy else None)
            if operation.function == "drop_policy":
                recreated.add(("create_policy", *one[1:]))
            elif key not in created and one not in recreated:
                made = past.protection(default_schema) if made is None else made
                operation.undo.implicit = operation.undo.implicit or one in made
        yield operation
