"""Writes the declarations of the row security that a database has: ``sqla-rls import``.

The module attaches them to the tables of a MetaData, so that autogenerate finds no change.  Objects that
can't be declared become comments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from textwrap import indent
from typing import Any

from sqlalchemy import Connection

from sqla_rls.catalog.query import fetch_rows, key_of, pinned, sql_file
from sqla_rls.catalog.read import DatabaseSnapshot, read_database
from sqla_rls.catalog.views import views_in
from sqla_rls.ddl.privileges import Grants, granted_together
from sqla_rls.declare.base import READY_MADE, anonymous, authenticated
from sqla_rls.declare.grantable import GRANTABLE, is_beyond_row_security
from sqla_rls.diff.privileges import BUILT_IN
from sqla_rls.introspect import functions as function_declarations
from sqla_rls.introspect.declarable import Declarable
from sqla_rls.introspect.preset import Preset
from sqla_rls.introspect.source import (
    HEAD,
    INDENT,
    REQUIRE_TABLES,
    RUN_FIRST_HEAD,
    call,
    comment,
    in_docstring,
    keywords,
    literal,
    role_call,
    table_name,
)
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    PUBLIC,
    Membership,
    ObjectKey,
    Policy,
    Privilege,
    Role,
    TableKey,
    View,
    members_last,
    unless_default,
)

log = autogenerate_log(__name__)


#: The default privileges of PUBLIC in a new database.
_BUILT_IN = {("FUNCTIONS", "EXECUTE"), ("TYPES", "USAGE")}


def declarations(connection: Connection, schemas: Collection[str] = ()) -> str:
    """Return the source of a module with the declarations for *schemas*, or for the default schema.

    The default privileges are those of the connected role: connect as the migrating role.  On Supabase, the
    module has the preset for it, and the policies on its tables.
    """
    (default_schema,) = connection.exec_driver_sql("SELECT current_schema()").one()
    with pinned(connection):
        preset = Preset.of(connection)
        asked = [one for one in schemas or [default_schema] if not preset.ignored.schema(one)]
        names = {"default_schema": default_schema, "schemas": asked}
        functions = function_declarations.read(connection, **names)
        live = preset.without(read_database(connection, **names, objects=functions.objects))
        for remark in live.auth.remarks_on_edits():
            log.warning("%s", remark)
        views = views_in(connection, live.all_views, default_schema=default_schema)
        on_tables = preset.policies(connection)
        declared_views = [one for one in views.values() if one.security_invoker]
        users = functions.objects | {ObjectKey("TABLE", *one.key) for one in declared_views}
        needed = [
            *_needed(connection, asked, default_schema, users),
            *_undeclared_views(views.values(), live, asked, default_schema),
        ]
    module = _Module(live, declared_views, functions, asked, preset, on_tables)
    module.remarks += needed
    body = list(module.lines())
    if all(line.startswith("#") for each in body for line in each.splitlines()):
        body.append("pass")
    run_first, statements = "", [*functions.run_first]
    if BUILT_IN.name in asked and BUILT_IN not in live.privileges:
        statements.append(f"REVOKE USAGE ON SCHEMA {BUILT_IN.name} FROM PUBLIC")
    if statements:
        listed = "".join(indent(f"{literal(one)},\n", INDENT) for one in statements)
        run_first = f"{RUN_FIRST_HEAD}RUN_FIRST = [\n{listed}]\n\n\n"
    more = ", supabase" if preset else ""
    head = HEAD.format(database=in_docstring(connection.engine.url.database), more=more, run_first=run_first)
    return head + "".join(f"{indent(line, INDENT)}\n" for line in body)


def _needed(
    connection: Connection, schemas: Collection[str], default_schema: str, users: Collection[ObjectKey]
) -> Iterator[str]:
    """Yield remarks on objects that no declaration creates, and that policies or *users* use."""
    names: dict[str, None] = {}
    for row in fetch_rows(connection, sql_file("needed_types_and_sequences"), {"schemas": list(schemas)}):
        schema = unless_default(row["user_schema"], default_schema)
        keys = {
            ObjectKey(row["user_type"], schema, name) for name in (row["user_name"], row["user_signature"])
        }
        if row["user_type"] is None or not keys.isdisjoint(users):
            names[f"{row['kind']} {table_name(key_of(row, default_schema))}"] = None
    for name in names:
        yield (f"{name} isn't declared, and declarations need it: add it to the models, or create it first")


def _undeclared_views(
    views: Iterable[View], live: DatabaseSnapshot, schemas: Collection[str], default_schema: str
) -> Iterator[str]:
    """Yield remarks on views that others may use, and that read their tables as their owner."""
    used = {one.object for one in live.privileges if one[:4] not in live.owners}
    for view in views:
        if not view.security_invoker and view.object in used and (view.schema or default_schema) in schemas:
            yield (
                f"view {table_name(view.key)} isn't declared: it shows the rows that its owner reads, past "
                "row security. Declare it by view(), with or without security_invoker"
            )


class _Module(Declarable):
    """Writes the lines of the module."""

    def __init__(
        self,
        live: DatabaseSnapshot,
        views: Collection[View],
        functions: function_declarations.IntrospectedFunctions,
        schemas: Collection[str],
        preset: Preset,
        on_tables: Mapping[str, Collection[Policy]],
    ) -> None:
        self.preset, self.on_tables = preset, on_tables
        super().__init__(live, views, functions, schemas)

    def lines(self) -> Iterator[str]:
        if named := sorted({*self.tables, *self.open_tables}, key=str):
            names = "".join(indent(f"{table_name(table)!r},\n", INDENT) for table in named)
            yield from REQUIRE_TABLES.format(tables=f"[\n{names}]").splitlines()
        if not self.live.held_by_public:
            yield "sqla_rls.revoke_public_privileges(metadata)"
        if self.preset:
            yield "supabase.leave_alone(metadata)"
        elif not self.auth_functions:
            yield "# delete this call before you declare a policy that asks for the caller (auth_uid())"
            yield from call("sqla_rls.ignore", "metadata", f"schemas=[{AUTH_SCHEMA!r}]")
        tables = [line for table in self.tables for line in self._table(table)]
        tables += [line for table in self.open_tables for line in self._open_table(table)]
        defaults = list(self._default_privileges())
        yield from self._roles()
        for one in granted_together(one for one in self.on_schemas if one.grantee not in self.preset.roles):
            yield self._grant("sqla_rls.grant_on", one)
        for key, arguments in self.functions.declared.items():
            yield from self._function(key, arguments)
        yield from tables
        for function, policies in self.on_tables.items():
            items = [self._policy(policy) for policy in policies]
            yield from call("declare_on", f"supabase.{function}(metadata)", *items) if items else ()
        for name in self.called:
            yield from self._called_sequence(ObjectKey("SEQUENCE", *name))
        for on in sorted(self.functions.made_first, key=str):
            yield from self._made_first(on)
        for view in self.views:
            yield from self._view(view)
        yield from defaults
        yield from map(comment, self.remarks)

    def _roles(self) -> Iterator[str]:
        named = {
            *(role for policy in self.policies for role in policy.roles),
            *(one.grantee for one in (*self.privileges, *self.on_schemas)),
            *(one.grantee for one in self.live.default_privileges),
        }
        if authenticated.name in named and any(one.member == anonymous.name for one in self.live.memberships):
            # The declaration of "authenticated" also declares "anonymous", without memberships.
            named.add(anonymous.name)
        named -= self.preset.roles
        found = {name: self._role(name) for name in sorted(named - {PUBLIC}) if not name.startswith("pg_")}
        if found:
            calls = [role_call(role) for role in members_last(found)]
            yield from call("sqla_rls.declare_roles", "metadata", *calls)

    def _role(self, name: str) -> Role:
        live = self.live.roles[name]
        memberships = sorted(one for one in self.live.memberships if one.member == name)
        if any(map(_has_options, memberships)):
            revoked = ". Autogenerate will revoke them" if name in READY_MADE else ""
            self.remarks.append(f"the memberships of {name} aren't declared: they have options{revoked}")
            memberships = []
        return Role(
            name,
            # With login=False, "authenticated" doesn't bring the role "anonymous" along.
            login=True if live.login else False if self._is_single(name) else None,
            inherit=None if live.inherit else False,
            bypassrls=True if live.bypassrls else None,
            member_of=[one.role for one in memberships] or None,
        )

    def _is_single(self, name: str) -> bool:
        return not self.preset and name == authenticated.name and anonymous.name not in self.live.roles

    def _named(self, roles: Iterable[str]) -> str:
        calls = [
            role_call(self._role(role)) if self._is_single(role) else repr(role) for role in sorted(roles)
        ]
        return f"[{', '.join(calls)}]"

    def _table(self, table: TableKey) -> Iterator[str]:
        items = [self._policy(policy) for policy in self.live.policies_of(table)]
        items += self._grants_on_table(table)
        if self.live.row_security[table].forced:
            items.append("sqla_rls.force_row_level_security()")
        elif not self.live.policies_of(table):
            items.append("sqla_rls.enable_row_level_security()")
        yield from call("declare_on", f"metadata.tables[{table_name(table)!r}]", *items)
        yield from self._sequences(table)

    def _open_table(self, table: TableKey) -> Iterator[str]:
        """Yield the grants on a table without row security.

        If it has none, they name the roles to which default privileges would give some.
        """
        items = self._grants_on_table(table)
        if not items:
            lacking = {one.grantee for one in self._lacking(self.live.objects_of([table]))}
            items = [f"grant(to={self._named(lacking or [PUBLIC])})"]
        yield from call("declare_on", f"metadata.tables[{table_name(table)!r}]", *items)
        yield from self._sequences(table)

    def _grants_on_table(self, table: TableKey) -> list[str]:
        on_table = [one for one in self.privileges if one.object == ObjectKey("TABLE", *table)]
        return [self._grant("grant", one) for one in granted_together(on_table)]

    def _called_sequence(self, key: ObjectKey) -> Iterator[str]:
        held = [one for one in self.privileges if one.object == key]
        for one in granted_together(held):
            yield self._grant("sqla_rls.grant_on", one)
        if not held and (lacking := {one.grantee for one in self._lacking([key])}):
            said = keywords({"sequence": key.name, "schema": key.schema})
            yield f"sqla_rls.grant_on(metadata, to={self._named(lacking)}, {', '.join(said)})"

    def _sequences(self, table: TableKey) -> Iterator[str]:
        on_sequences = [one for one in self.privileges if one.object == ObjectKey("SEQUENCE", *table)]
        for column in sorted({one.column or "" for one in on_sequences}):
            for one in granted_together(one for one in on_sequences if one.column == column):
                yield self._grant("sqla_rls.grant_on", one)

    def _function(self, key: TableKey, arguments: dict[str, Any]) -> Iterator[str]:
        found = ObjectKey("FUNCTION", *key)
        held = {one.grantee for one in self.live.privileges if one.object == found}
        # None is a value here, too.
        said = [f"{name}={literal(value)}" for name, value in arguments.items()]
        yield from call("sqla_rls.sql_function", repr(key.name), "metadata", *said, f"to={self._named(held)}")

    def _made_first(self, key: ObjectKey) -> Iterator[str]:
        """Yield the grants on a function, unless PUBLIC may execute it, which is Postgres's default."""
        held = {one for one in self.privileges if one.object == key}
        if held == {Privilege(*key, PUBLIC, "EXECUTE")}:
            return
        for one in granted_together(held):
            yield self._grant("sqla_rls.grant_on", one)
        if not held:
            said = keywords({"function": key.name, "schema": key.schema})
            yield f"sqla_rls.grant_on(metadata, to={PUBLIC!r}, {', '.join(said)})"

    def _view(self, view: View) -> Iterator[str]:
        held = granted_together(one for one in self.privileges if one.object == view.object)
        options = {
            "schema": view.schema,
            "security_invoker": None if view.security_invoker else False,
            "security_barrier": view.security_barrier or None,
            "check_option": view.check_option,
        }
        arguments = [*(self._grant("grant", one) for one in held), *keywords(options)]
        yield from call("sqla_rls.view", repr(view.name), "metadata", literal(view.definition), *arguments)

    def _policy(self, policy: Policy) -> str:
        arguments = {
            "using": policy.using,
            "with_check": policy.with_check,
            "permissive": None if policy.permissive else False,
            "imply_privileges": False if policy.key in self.implying_nothing else None,
        }
        roles = self._named(policy.roles)
        head = [repr(policy.name), repr(policy.command), roles]
        return f"Policy({', '.join([*head, *keywords(arguments)])})"

    def _grant(self, function: str, one: Grants) -> str:
        object_type, schema, name = one.object
        if object_type == "SCHEMA":
            schema = name
        is_sequence = object_type == "SEQUENCE"
        kind = "COLUMNS" if one.columns and not is_sequence else f"{object_type}S"
        beyond = not GRANTABLE[kind].issuperset(one.privileges)
        by_name = (is_sequence and not one.columns) or object_type == "FUNCTION"
        arguments: dict[str, Any] = {
            "sequence": name if by_name and is_sequence else None,
            "function": name if object_type == "FUNCTION" else None,
            "schema": schema if by_name or object_type == "SCHEMA" else None,
            "columns": list(one.columns) if one.columns and not is_sequence else None,
            "grant_option": one.grantable or None,
            "bypasses_row_security": beyond or None,
        }
        head = ["metadata"] if function.endswith("grant_on") else []
        listed = [
            *head,
            *map(repr, one.privileges),
            f"to={self._named([one.grantee])}",
            *(
                f"sequence=metadata.tables[{table_name(TableKey(schema, name))!r}].c[{column!r}]"
                for column in one.columns or ()
                if is_sequence
            ),
            *keywords(arguments),
        ]
        remark = _remark_beyond(set(one.privileges) - GRANTABLE[kind], [one.grantee])
        return f"{remark}{function}({', '.join(listed)})"

    def _default_privileges(self) -> Iterator[str]:
        everybodys = {
            (one.object_type, one.privilege)
            for one in self.live.default_privileges
            if one.grantee == PUBLIC and one.schema is None
        }
        for object_type, _ in sorted(_BUILT_IN - everybodys):
            yield f"sqla_rls.default_privileges(metadata, on={object_type!r}, to={PUBLIC!r})"
        privileges: dict[tuple[str, str | None, str], dict[bool, list[str]]] = {}
        for one in sorted(self.live.default_privileges, key=str):
            if one.grantee == PUBLIC and (one.object_type, one.privilege) in _BUILT_IN:
                continue
            if one.grantee in self.preset.roles:
                continue
            # A declaration without privileges revokes the default ones.
            found = privileges.setdefault((one.object_type, one.schema, one.grantee), {})
            if self._is_refused(one):
                self.remarks.append(
                    f"autogenerate will revoke {one.privilege} on new {one.object_type} from {one.grantee}: "
                    "policies don't apply to it"
                )
            else:
                found.setdefault(is_beyond_row_security(one), []).append(one.privilege)
        grantees: dict[tuple[str, str | None, bool, tuple[str, ...]], list[str]] = {}
        for (object_type, schema, grantee), found in privileges.items():
            for beyond, names in (found or {False: []}).items():
                grantees.setdefault((object_type, schema, beyond, tuple(names)), []).append(grantee)
        for (object_type, schema, beyond, listed), roles in grantees.items():
            arguments = {"on": object_type, "schema": schema, "bypasses_row_security": beyond or None}
            said = [*map(repr, listed), f"to={self._named(roles)}", *keywords(arguments)]
            remark = _remark_beyond(listed, roles) if beyond else ""
            yield f"{remark}sqla_rls.default_privileges(metadata, {', '.join(said)})"


def _remark_beyond(privileges: Collection[str], roles: Collection[str]) -> str:
    """Return the comment above a grant of *privileges* that row security doesn't limit; "" for none."""
    if not privileges:
        return ""
    # A name may have line breaks in it.
    named = " ".join(", ".join(sorted(roles)).split())
    return (
        f"# policies don't limit {', '.join(sorted(privileges))} of {named}. "
        "Delete them below, and autogenerate revokes them\n"
    )


def _has_options(one: Membership) -> bool:
    return one.admin or one.set is False
