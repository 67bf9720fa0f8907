"""The roles, functions, views and privileges that earlier revisions create.

Another project may have created a role of the cluster, or a function of the database.  All databases share
only the revision files.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.ddl.public_privileges import PUBLIC_PRIVILEGE_NAMES
from sqla_rls.snapshot import BUILT_IN_DEFAULTS, DefaultPrivilege, Snapshot, TableKey

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

_OPERATIONS = (
    "create_rls_role",
    "create_auth_functions",
    "revoke_public_privileges",
    "grant_public_privileges",
    "grant_default_privileges",
    "revoke_default_privileges",
    "create_rls_function",
    "drop_rls_function",
    "create_rls_view",
    "replace_rls_view",
    "drop_rls_view",
)
#: A policy by its operation, its table and its name; or a flag of a table.
Made: TypeAlias = tuple[str, TableKey, str | None]
_FLAGS = {
    "disable_row_level_security": "enable_row_level_security",
    "no_force_row_level_security": "force_row_level_security",
}


class History(NamedTuple):
    """The objects that the earlier revisions create.

    Attributes:
        context: the migration context.
        tables: all tables of the models.
        roles: the names in ``op.create_rls_role()``.
        auth_functions: whether a revision calls ``op.create_auth_functions()``.
        functions: the created functions, without those dropped later, each with its last body.  None is a
            body that isn't a literal.
        views: the created views, without those dropped later.
        default_privileges: the default privileges after the revisions, with the built-in ones.
        public_revokes: the revoked privileges of PUBLIC, without those granted later.
    """

    context: MigrationContext
    tables: frozenset[TableKey]
    roles: frozenset[str]
    auth_functions: bool
    functions: Mapping[TableKey, str | None]
    views: frozenset[TableKey]
    default_privileges: frozenset[DefaultPrivilege]
    public_revokes: frozenset[str]

    def lacks_revoke(self, live: DatabaseSnapshot, models: Snapshot) -> bool:
        """Return whether *models* revoke privileges of PUBLIC that another database may still have."""
        lacking = {*PUBLIC_PRIVILEGE_NAMES} - self.public_revokes if models.revokes_public_privileges else ()
        return bool(lacking) and self._makes(live, models)

    def in_common(
        self, live: DatabaseSnapshot, models: Snapshot, schemas: Collection[str]
    ) -> DatabaseSnapshot:
        """Return *live* with the managed default privileges as every database has them.

        Default privileges in a schema of another tenant or project aren't managed.  Such a schema isn't one
        of the compared *schemas*, and neither the models nor a revision name it.
        """
        compared = {
            None,
            *schemas,
            *(one.schema for one in models.default_privileges | self.default_privileges),
        }
        live = replace(
            live,
            default_privileges=frozenset(one for one in live.default_privileges if one.schema in compared),
        )
        only_here = live.default_privileges & models.default_privileges - self.default_privileges
        elsewhere = {
            one
            for one in self.default_privileges - models.default_privileges - live.default_privileges
            if (one.object_type, one.grantee) in models.managed_defaults
        }
        if not (only_here or elsewhere) or not self._makes(live, models):
            return live
        return replace(live, default_privileges=(live.default_privileges - only_here) | elsewhere)

    def _makes(self, live: DatabaseSnapshot, models: Snapshot) -> bool:
        """Return whether the revisions have created the database.

        If no revision creates its tables, ``create_all()`` or a person has created them.
        """
        there = (models.managed or self.tables) & live.row_security.keys()
        return not there or any(
            operation.table(live.default_schema) in there
            for operation in _operations(self.context, ("create_table",))
        )

    def protection(self, default_schema: str) -> set[Made]:
        """Return the policies and the flags of tables that the revisions have created."""
        names = ("create_policy", "drop_policy", "alter_policy", "drop_table", *_FLAGS, *_FLAGS.values())
        made: set[Made] = set()
        for operation in _operations(self.context, names):
            table = operation.table(default_schema, 1 if operation.name.endswith("policy") else 0)
            policy: Made = ("create_policy", table, operation.argument(0, "policy_name"))
            match operation.name:
                case "create_policy":
                    made.add(policy)
                case "drop_policy":
                    made.discard(policy)
                case "alter_policy":
                    if policy in made and (name := operation.argument(-1, "new_policy_name")):
                        made.discard(policy)
                        made.add(("create_policy", table, name))
                case "drop_table":
                    made -= {one for one in made if one[1] == table}
                case flag if flag in _FLAGS:
                    made.discard((_FLAGS[flag], table, None))
                case flag:
                    made.add((flag, table, None))
        return made


class _Operation(NamedTuple):
    """A call of an operation with its literal arguments; the names of the others are in *unknown*."""

    name: str
    arguments: Mapping[int | str, Any]
    unknown: frozenset[int | str]

    def argument(self, place: int, name: str) -> Any:
        return self.arguments.get(place, self.arguments.get(name))

    def table(self, default_schema: str, place: int = 0) -> TableKey:
        schema = self.argument(-1, "schema")
        return TableKey.of(schema, self.argument(place, "table_name"), default_schema)

    def keys(self, default_schema: str) -> set[TableKey]:
        """Return the key of its function or view, if name and schema are literals."""
        name, schema = self.argument(0, "name"), self.argument(-1, "schema")
        if not isinstance(name, str) or "schema" in self.unknown:
            return set()
        return {TableKey.of(schema, name, default_schema)}


def history(context: MigrationContext, default_schema: str, *, tables: Iterable[TableKey]) -> History | None:
    """Return the history of *context*, for models with *tables*; None without revisions."""
    if context.script is None:
        return None
    roles: set[str] = set()
    functions: dict[TableKey, str | None] = {}
    views: set[TableKey] = set()
    public_revokes: set[str] = set()
    auth_functions = False
    defaults = {*BUILT_IN_DEFAULTS}
    for operation in _operations(context, _OPERATIONS):
        match operation.name:
            case "create_rls_role":
                roles.add(operation.argument(0, "name"))
            case "create_auth_functions":
                auth_functions = True
            case "grant_default_privileges":
                defaults |= _default_privileges(operation, default_schema)
            case "revoke_default_privileges":
                defaults -= _default_privileges(operation, default_schema)
            case "create_rls_function":
                body = operation.argument(-1, "body")
                functions |= dict.fromkeys(operation.keys(default_schema), body)
            case "drop_rls_function":
                for key in operation.keys(default_schema):
                    functions.pop(key, None)
            case "create_rls_view" | "replace_rls_view":
                views |= operation.keys(default_schema)
            case "drop_rls_view":
                views -= operation.keys(default_schema)
            case "revoke_public_privileges":
                public_revokes |= {*(operation.argument(0, "privileges") or ())}
            case "grant_public_privileges":
                public_revokes -= {*(operation.argument(0, "privileges") or ())}
    return History(
        context=context,
        tables=frozenset(tables),
        roles=frozenset(name for name in roles if isinstance(name, str)),
        auth_functions=auth_functions,
        functions=functions,
        views=frozenset(views),
        default_privileges=frozenset(defaults),
        public_revokes=frozenset(public_revokes),
    )


def _default_privileges(operation: _Operation, default_schema: str) -> set[DefaultPrivilege]:
    object_type = operation.argument(1, "object_type")
    schema = default_schema if operation.argument(-1, "current_schema") else operation.argument(-1, "schema")
    return {
        DefaultPrivilege(object_type, schema, grantee, privilege)
        for privilege in operation.argument(0, "privileges") or ()
        for grantee in operation.argument(2, "grantees") or ()
    }


def _operations(context: MigrationContext, names: Collection[str]) -> Iterator[_Operation]:
    """Yield the operations of the revisions' upgrades, in order."""
    if context.script is None:
        return
    # Alembic's template for several databases has one function for each: upgrade_engine1().
    section = context.opts.get("upgrade_token", "").removesuffix("upgrades").strip("_")
    for script in reversed([*context.script.walk_revisions()]):
        yield from _in_file(Path(script.path), names, f"upgrade_{section}" if section else None)


def _in_file(path: Path, names: Collection[str], section: str | None) -> Iterator[_Operation]:
    source = path.read_bytes() if path.suffix == ".py" else b""
    # Most revisions have no such operation, and parsing takes a millisecond.
    if not any(name.encode() in source for name in names):
        return
    body = ast.parse(source).body
    functions = {one.name for one in body if isinstance(one, ast.FunctionDef)}
    others = {one for one in functions if one.startswith("downgrade")}
    if section in functions:
        others |= {one for one in functions if one.startswith("upgrade_") and one != section}
    calls = [
        node
        for part in body
        if not (isinstance(part, ast.FunctionDef) and part.name in others)
        for node in ast.walk(part)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    ]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        given: list[tuple[int | str, ast.expr]] = [*enumerate(call.args)]
        given += [(one.arg, one.value) for one in call.keywords if one.arg]
        known = dict(_literals(given))
        unknown = frozenset(key for key, _ in given) - known.keys()
        yield _Operation(getattr(call.func, "attr", ""), known, unknown)


def _literals(given: list[tuple[int | str, ast.expr]]) -> Iterator[tuple[int | str, Any]]:
    for key, value in given:
        try:
            yield key, ast.literal_eval(value)
        except ValueError:
            continue
