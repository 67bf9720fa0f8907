"""Writes the declarations of the row security that a database has: ``sqla-rls import``.

The module that comes out attaches them to the tables of a MetaData, so that autogenerate finds nothing
to do.  What can't be declared stands in it as a comment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from textwrap import indent
from typing import Any

from sqlalchemy import Connection

from sqla_rls.catalog.query import pinned
from sqla_rls.catalog.read import DatabaseSnapshot, read_database
from sqla_rls.catalog.views import views_in
from sqla_rls.ddl.privileges import Grants, granted_together
from sqla_rls.declare.base import READY_MADE, anonymous, authenticated
from sqla_rls.declare.grants import GRANTABLE, is_beyond_row_security
from sqla_rls.diff.implied import implied_privileges
from sqla_rls.diff.privileges import BUILT_IN, given_by_default
from sqla_rls.introspect import functions as function_declarations
from sqla_rls.introspect.functions import IntrospectedFunctions
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    PUBLIC,
    SECRET_SCHEMA,
    DefaultPrivilege,
    Membership,
    ObjectKey,
    Policy,
    Privilege,
    Role,
    TableKey,
    View,
    callers,
    members_last,
)

log = autogenerate_log(__name__)

_HEAD = '''"""Row security, as it was found in the database {database!r}.

Call declare_row_security(Base.metadata) where the models are complete, before Alembic's env.py takes it.
"""

from sqlalchemy import MetaData

import sqla_rls
from sqla_rls import Policy, Role, declare_on, grant
from sqla_rls.exc import DeclarationError


{run_first}def declare_row_security(metadata: MetaData) -> None:
'''
_RUN_FIRST = """#: SQL that makes what models can't declare.  The first migration runs it first:
#: for statement in RUN_FIRST: op.execute(text(statement.replace(":", r"\\:")))
"""
#: A module that is given other models than the tables were found in says so.
_REQUIRE_TABLES = """tables = {tables}
if missing := sorted(set(tables) - metadata.tables.keys()):
    raise DeclarationError(
        f"declare_row_security() failed: the models lack these tables: {{', '.join(missing)}}. "
        "Add them to the models, or delete their declarations from this module"
    )"""
_INDENT = "    "
#: Alembic's own table, which no model has.
_ALEMBIC_VERSION = "alembic_version"
#: What Postgres gives everybody on whatever is made.
_BUILT_IN = {("FUNCTIONS", "EXECUTE"), ("TYPES", "USAGE")}


def declarations(connection: Connection, schemas: Collection[str] = ()) -> str:
    """The source of a module that declares what *connection* sees in *schemas*, or in the default one.

    Default privileges are those of the role that is connected: let it be the one that migrates.
    """
    (default_schema,) = connection.exec_driver_sql("SELECT current_schema()").one()
    with pinned(connection):
        names = {"default_schema": default_schema, "schemas": list(schemas) or [default_schema]}
        functions = function_declarations.read(connection, **names)
        live = read_database(connection, **names, objects=functions.objects)
        for remark in live.auth.remarks_on_edits():
            log.warning("%s", remark)
        views = views_in(connection, live.all_views, default_schema=default_schema)
    declared_views = [one for one in views.values() if one.security_invoker]
    body = list(_Declarations(live, declared_views, functions, names["schemas"]).lines())
    if all(line.startswith("#") for line in body):
        body.append("pass")
    run_first = ""
    if functions.run_first:
        listed = "".join(indent(f"{_text(one)},\n", _INDENT) for one in functions.run_first)
        run_first = f"{_RUN_FIRST}RUN_FIRST = [\n{listed}]\n\n\n"
    head = _HEAD.format(database=connection.engine.url.database, run_first=run_first)
    return head + "".join(f"{indent(line, _INDENT)}\n" for line in body)


class _Declarations:
    def __init__(
        self,
        live: DatabaseSnapshot,
        views: Collection[View],
        functions: IntrospectedFunctions,
        schemas: Collection[str],
    ) -> None:
        self.live, self.views, self.functions = live, views, functions
        self.remarks = [*functions.remarks]
        self.tables = sorted(filter(self._is_declared, live.row_security), key=str)
        self.policies = [policy for table in self.tables for policy in live.policies_of(table)]
        self.callers = callers(role for policy in self.policies for role in policy.roles)
        self.auth_functions = self._may_ask_who_is_calling()
        #: Those without row security, which have privileges alone.
        self.open_tables = sorted(filter(self._has_its_own_privileges, self._unprotected()), key=str)
        self.objects = live.objects_of({*self.tables, *self.open_tables})
        self.objects |= {view.object for view in views} | functions.objects
        self.called = sorted(self._called_sequences())
        self.objects |= {ObjectKey("SEQUENCE", *name) for name in self.called}
        self.silent = {policy.key for policy in self.policies if not self._holds_what_it_implies(policy)}
        self.privileges = self._beyond_the_implied()
        self.on_schemas = list(self._on_schemas(schemas))

    def lines(self) -> Iterator[str]:
        if named := sorted({*self.tables, *self.open_tables}, key=str):
            names = "".join(indent(f"{_name(table)!r},\n", _INDENT) for table in named)
            yield from _REQUIRE_TABLES.format(tables=f"[\n{names}]").splitlines()
        if not self.live.held_by_public:
            yield "sqla_rls.revoke_public_privileges(metadata)"
        if not self.auth_functions:
            yield from _call("sqla_rls.ignore", "metadata", f"schemas=[{AUTH_SCHEMA!r}]")
        tables = [line for table in self.tables for line in self._table(table)]
        tables += [line for table in self.open_tables for line in self._open_table(table)]
        defaults = list(self._default_privileges())
        yield from self._roles()
        for one in granted_together(self.on_schemas):
            yield self._grant("sqla_rls.grant_on", one)
        for key, arguments in self.functions.declared.items():
            yield from self._function(key, arguments)
        yield from tables
        for name in self.called:
            yield from self._called_sequence(ObjectKey("SEQUENCE", *name))
        for on in sorted(self.functions.made_first, key=str):
            yield from self._made_first(on)
        for view in self.views:
            yield from self._view(view)
        yield from defaults
        # A name may have line breaks in it.
        yield from (f"# {' '.join(remark.splitlines())}" for remark in self.remarks)

    def _called_sequences(self) -> set[TableKey]:
        """Those by name that the defaults of the tables call; of other tables, those that are more closed."""
        found: set[TableKey] = set()
        for table, (schema, name, column), _ in self.live.called_sequences:
            on = ObjectKey("SEQUENCE", schema, name)
            if column is None and (table in {*self.tables, *self.open_tables} or self._lacking([on])):
                found.add(TableKey(schema, name))
        return found

    def _is_declared(self, table: TableKey) -> bool:
        """Whether there is anything to declare on *table*, and a way to say it."""
        flags = self.live.row_security[table]
        if flags.enabled:
            return True
        if self.live.policies_of(table) or flags.forced:
            self.remarks.append(
                f"{_name(table)} has policies, or FORCE, but row security is disabled there: not declared, "
                "since that would enable it"
            )
        return False

    def _unprotected(self) -> set[TableKey]:
        """The tables without row security that declarations of others don't cover."""
        found = {table for table in self.live.row_security if table in self.live.without_row_security}
        covered = self.live.heirs_of(self.tables)
        for table in found & covered.keys():
            held = self._held({ObjectKey("TABLE", *table)})
            if roles := sorted({one.grantee for one in held} & self.live.groups_of(self.callers)):
                self.remarks.append(
                    f"{', '.join(roles)} may reach {_name(table)} past the row security of "
                    f"{', '.join(sorted(map(_name, covered[table])))}: autogenerate will revoke that"
                )
        return found - covered.keys() - {*self.tables, TableKey(None, _ALEMBIC_VERSION)}

    def _has_its_own_privileges(self, table: TableKey) -> bool:
        """Whether the privileges on *table* are others than those that default privileges give."""
        objects = self.live.objects_of([table])
        if self._lacking(objects):
            return True
        more = self._held(objects) - self._given(objects)
        return bool(more) and not any(one.grantor or self._is_refused(one) for one in more)

    def _lacking(self, objects: Collection[ObjectKey]) -> set[Privilege]:
        """What *objects* lack of what default privileges give where they are made."""
        plain = {one._replace(grantable=False, grantor=None) for one in self._held(objects)}
        return self._given(objects) - plain

    def _held(self, objects: Collection[ObjectKey]) -> set[Privilege]:
        return {
            one for one in self.live.privileges if one.object in objects and not one.grantee.startswith("pg_")
        }

    def _given(self, objects: Collection[ObjectKey]) -> set[Privilege]:
        defaults = [one for one in self.live.default_privileges if not self._is_refused(one)]
        owned = [one for one in self.live.owned_sequences if ObjectKey("SEQUENCE", *one.table) in objects]
        return {
            one
            for one in given_by_default(defaults, objects, owned, self.live.default_schema)
            if one[:4] not in self.live.owners
        }

    def _may_ask_who_is_calling(self) -> bool:
        """Whether the functions of schema auth, which the text of a policy may call, need nothing more."""
        callers = {role for policy in self.policies for role in policy.roles}
        if authenticated.name in callers and anonymous.name in self.live.roles:
            callers.add(anonymous.name)
        usage = {Privilege("SCHEMA", None, AUTH_SCHEMA, role, "USAGE") for role in callers}
        return self.live.auth_functions and not self._missing(usage)

    def _missing(self, privileges: Iterable[Privilege]) -> set[Privilege]:
        return {
            one
            for one in set(privileges) - self.live.privileges
            if one[:4] not in self.live.owners and one.grantee != self.live.role_keywords["CURRENT_USER"]
        }

    def _implied(self, policies: Iterable[Policy]) -> set[Privilege]:
        return set(
            implied_privileges(
                policies,
                self.live,
                default_schema=self.live.default_schema,
                auth_functions=self.auth_functions,
            )
        )

    def _holds_what_it_implies(self, policy: Policy) -> bool:
        return not self._missing(self._implied([policy]))

    def _beyond_the_implied(self) -> list[Privilege]:
        held = set()
        for one in self.live.privileges:
            if one.object not in self.objects or one.grantee.startswith("pg_"):
                continue
            if one.grantor is None:
                held.add(one)
            else:
                self.remarks.append(
                    f"{one.grantee} holds {one.privilege} on {one.name} from {one.grantor}, who doesn't own "
                    "it: autogenerate will revoke that"
                )
        refused = {one for one in held if self._is_refused(one)}
        self.remarks += [
            f"{one.grantee} holds {', '.join(one.privileges)} on {one.object.name}, which row security "
            "doesn't reach: autogenerate will revoke that"
            for one in granted_together(refused)
        ]
        held -= refused
        beyond = held - self._implied(policy for policy in self.policies if policy.key not in self.silent)
        # A grant on columns narrows what a policy implies.
        narrowed = {one[:5] for one in beyond if one.column is not None}
        return [one for one in held if one in beyond or one[:5] in narrowed]

    def _on_schemas(self, schemas: Collection[str]) -> Iterator[Privilege]:
        """What roles hold on *schemas* beyond the implied; there, what nobody declares is left alone."""
        held: dict[tuple[str, str], set[Privilege]] = {}
        for one in self.live.privileges:
            if one.object_type == "SCHEMA" and one.name in {*schemas} - {AUTH_SCHEMA, SECRET_SCHEMA}:
                held.setdefault((one.name, one.grantee), set()).add(
                    one._replace(grantable=False, grantor=None)
                )
        implied = self._implied(policy for policy in self.policies if policy.key not in self.silent)
        for (_, grantee), privileges in held.items():
            if not (
                grantee.startswith("pg_")
                or privileges <= implied | {BUILT_IN}
                or any(map(self._is_refused, privileges))
            ):
                yield from privileges

    def _is_refused(self, one: Privilege | DefaultPrivilege) -> bool:
        return one.grantee in self.callers and is_beyond_row_security(one)

    def _roles(self) -> Iterator[str]:
        named = {
            *(role for policy in self.policies for role in policy.roles),
            *(one.grantee for one in (*self.privileges, *self.on_schemas)),
            *(one.grantee for one in self.live.default_privileges),
        }
        if authenticated.name in named and any(one.member == anonymous.name for one in self.live.memberships):
            # Declaring the one makes the other, as a member of no role unless it is said.
            named.add(anonymous.name)
        found = {name: self._role(name) for name in sorted(named - {PUBLIC}) if not name.startswith("pg_")}
        if found:
            calls = [_role_call(role) for role in members_last(found)]
            yield from _call("sqla_rls.declare_roles", "metadata", *calls)

    def _role(self, name: str) -> Role:
        live = self.live.roles[name]
        memberships = sorted(one for one in self.live.memberships if one.member == name)
        if any(map(_has_options, memberships)):
            revoked = ": autogenerate will revoke them" if name in READY_MADE else ""
            self.remarks.append(f"the memberships of {name} have options, and are not declared{revoked}")
            memberships = []
        return Role(
            name,
            # Said of "authenticated", it is a role like others, and brings no second one along.
            login=True if live.login else False if self._is_single(name) else None,
            inherit=None if live.inherit else False,
            bypassrls=True if live.bypassrls else None,
            member_of=[one.role for one in memberships] or None,
        )

    def _is_single(self, name: str) -> bool:
        return name == authenticated.name and anonymous.name not in self.live.roles

    def _named(self, roles: Iterable[str]) -> str:
        calls = [
            _role_call(self._role(role)) if self._is_single(role) else repr(role) for role in sorted(roles)
        ]
        return f"[{', '.join(calls)}]"

    def _table(self, table: TableKey) -> Iterator[str]:
        items = [self._policy(policy) for policy in self.live.policies_of(table)]
        items += self._grants_on_table(table)
        if self.live.row_security[table].forced:
            items.append("sqla_rls.force_row_level_security()")
        elif not self.live.policies_of(table):
            items.append("sqla_rls.enable_row_level_security()")
        yield from _call("declare_on", f"metadata.tables[{_name(table)!r}]", *items)
        yield from self._sequences(table)

    def _open_table(self, table: TableKey) -> Iterator[str]:
        """The privileges on one without row security; if it has none, who would have some by default."""
        items = self._grants_on_table(table)
        if not items:
            lacking = {one.grantee for one in self._lacking(self.live.objects_of([table]))}
            items = [f"grant(to={self._named(lacking or [PUBLIC])})"]
        yield from _call("declare_on", f"metadata.tables[{_name(table)!r}]", *items)
        yield from self._sequences(table)

    def _grants_on_table(self, table: TableKey) -> list[str]:
        on_table = [one for one in self.privileges if one.object == ObjectKey("TABLE", *table)]
        return [self._grant("grant", one) for one in granted_together(on_table)]

    def _called_sequence(self, key: ObjectKey) -> Iterator[str]:
        held = [one for one in self.privileges if one.object == key]
        for one in granted_together(held):
            yield self._grant("sqla_rls.grant_on", one)
        if not held and (lacking := {one.grantee for one in self._lacking([key])}):
            said = _keywords({"sequence": key.name, "schema": key.schema})
            yield f"sqla_rls.grant_on(metadata, to={self._named(lacking)}, {', '.join(said)})"

    def _sequences(self, table: TableKey) -> Iterator[str]:
        on_sequences = [one for one in self.privileges if one.object == ObjectKey("SEQUENCE", *table)]
        for column in sorted({one.column or "" for one in on_sequences}):
            for one in granted_together(one for one in on_sequences if one.column == column):
                yield self._grant("sqla_rls.grant_on", one)

    def _function(self, key: TableKey, arguments: dict[str, Any]) -> Iterator[str]:
        found = ObjectKey("FUNCTION", *key)
        held = {one.grantee for one in self.live.privileges if one.object == found}
        # Its owner needs no grant, and stands for nobody else.
        owner = {one for *on, one in self.live.owners if tuple(on) == found}
        to = self._named(held or owner)
        # None is a value here, too.
        said = [f"{name}={_text(value)}" for name, value in arguments.items()]
        yield from _call("sqla_rls.sql_function", repr(key.name), "metadata", *said, f"to={to}")

    def _made_first(self, key: ObjectKey) -> Iterator[str]:
        """Who may execute it, where that isn't everybody, as Postgres has it."""
        held = {one for one in self.privileges if one.object == key}
        if held == {Privilege(*key, PUBLIC, "EXECUTE")}:
            return
        for one in granted_together(held):
            yield self._grant("sqla_rls.grant_on", one)
        if not held:
            said = _keywords({"function": key.name, "schema": key.schema})
            yield f"sqla_rls.grant_on(metadata, to={PUBLIC!r}, {', '.join(said)})"

    def _view(self, view: View) -> Iterator[str]:
        held = granted_together(one for one in self.privileges if one.object == view.object)
        options = {
            "schema": view.schema,
            "security_invoker": None if view.security_invoker else False,
            "security_barrier": view.security_barrier or None,
            "check_option": view.check_option,
        }
        arguments = [*(self._grant("grant", one) for one in held), *_keywords(options)]
        yield from _call("sqla_rls.view", repr(view.name), "metadata", _text(view.definition), *arguments)

    def _policy(self, policy: Policy) -> str:
        arguments = {
            "using": policy.using,
            "with_check": policy.with_check,
            "permissive": None if policy.permissive else False,
            "imply_privileges": False if policy.key in self.silent else None,
        }
        roles = self._named(policy.roles)
        head = [repr(policy.name), repr(policy.command), roles]
        return f"Policy({', '.join([*head, *_keywords(arguments)])})"

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
                f"sequence=metadata.tables[{_name(TableKey(schema, name))!r}].c[{column!r}]"
                for column in one.columns or ()
                if is_sequence
            ),
            *_keywords(arguments),
        ]
        return f"{function}({', '.join(listed)})"

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
            # Without any privilege it says that there is to be none.
            found = privileges.setdefault((one.object_type, one.schema, one.grantee), {})
            if self._is_refused(one):
                self.remarks.append(
                    f"{one.grantee} gets {one.privilege} on new {one.object_type}, which row security "
                    "doesn't reach: autogenerate will revoke that"
                )
            else:
                found.setdefault(is_beyond_row_security(one), []).append(one.privilege)
        grantees: dict[tuple[str, str | None, bool, tuple[str, ...]], list[str]] = {}
        for (object_type, schema, grantee), found in privileges.items():
            for beyond, names in (found or {False: []}).items():
                grantees.setdefault((object_type, schema, beyond, tuple(names)), []).append(grantee)
        for (object_type, schema, beyond, listed), roles in grantees.items():
            arguments = {"on": object_type, "schema": schema, "bypasses_row_security": beyond or None}
            said = [*map(repr, listed), f"to={self._named(roles)}", *_keywords(arguments)]
            yield f"sqla_rls.default_privileges(metadata, {', '.join(said)})"


def _name(table: TableKey) -> str:
    """As the key of a table in ``MetaData.tables``."""
    return f"{table.schema}.{table.name}" if table.schema else table.name


def _has_options(one: Membership) -> bool:
    return one.admin or one.set is False


def _role_call(role: Role) -> str:
    arguments = {
        "login": role.login,
        "inherit": role.inherit,
        "bypassrls": role.bypassrls,
        "member_of": list(map(str, role.member_of)) if role.member_of else None,
    }
    return f"Role({', '.join([repr(role.name), *_keywords(arguments)])})"


def _keywords(arguments: dict[str, Any]) -> list[str]:
    return [f"{name}={_text(value)}" for name, value in arguments.items() if value is not None]


def _text(value: Any) -> str:
    """As a literal, line by line."""
    lines = value.splitlines(keepends=True) if isinstance(value, str) else []
    if len(lines) < 2:
        return repr(value)
    listed = "\n".join(map(repr, lines))
    return f"(\n{indent(listed, _INDENT)}\n)"


def _call(function: str, *arguments: str) -> Iterator[str]:
    yield f"{function}("
    yield from (indent(f"{argument},", _INDENT) for argument in arguments)
    yield ")"
