"""The objects of a database that can be declared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.ddl.privileges import granted_together
from sqla_rls.declare.base import anonymous, authenticated
from sqla_rls.declare.grantable import is_beyond_row_security
from sqla_rls.diff.implied import implied_privileges
from sqla_rls.diff.privileges import BUILT_IN, given_by_default
from sqla_rls.introspect.functions import IntrospectedFunctions
from sqla_rls.introspect.source import table_name
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    SECRET_SCHEMA,
    DefaultPrivilege,
    ObjectKey,
    Policy,
    Privilege,
    TableKey,
    View,
    callers,
)

#: Alembic's own table, which isn't part of models.
_ALEMBIC_VERSION = "alembic_version"


class Declarable:
    """The objects of a database that can be declared, and remarks on the others."""

    def __init__(
        self,
        live: DatabaseSnapshot,
        views: Collection[View],
        functions: IntrospectedFunctions,
        schemas: Collection[str],
    ) -> None:
        self.views, self.functions = views, functions
        self.remarks = [*functions.remarks]
        self.live = live = self._with_expressions(live)
        self.tables = sorted(filter(self._is_declared, live.row_security), key=str)
        self.policies = [policy for table in self.tables for policy in live.policies_of(table)]
        self.callers = callers(role for policy in self.policies for role in policy.roles)
        self.auth_functions = self._may_ask_who_is_calling()
        #: The tables without row security, which have privileges only.
        self.open_tables = sorted(filter(self._has_its_own_privileges, self._unprotected()), key=str)
        self.objects = live.objects_of({*self.tables, *self.open_tables})
        self.objects |= {view.object for view in views} | functions.objects
        self.called = sorted(self._called_sequences())
        self.objects |= {ObjectKey("SEQUENCE", *name) for name in self.called}
        self.implying_nothing = {
            policy.key for policy in self.policies if not self._holds_what_it_implies(policy)
        }
        self.privileges = self._beyond_the_implied()
        self.on_schemas = list(self._on_schemas(schemas))

    def _with_expressions(self, live: DatabaseSnapshot) -> DatabaseSnapshot:
        """Return *live* without the policies that have no expression; add a remark for each."""
        without = {
            key: one for key, one in live.policies.items() if one.using is None and one.with_check is None
        }
        for key, policy in sorted(without.items(), key=str):
            if live.row_security[key.table].enabled:
                effect = "admits" if policy.permissive else "limits"
                self.remarks.append(
                    f"autogenerate will drop policy {policy.name} on {table_name(key.table)}: it has no "
                    f"expression, and {effect} no row"
                )
        return replace(live, policies={key: one for key, one in live.policies.items() if key not in without})

    def _called_sequences(self) -> set[TableKey]:
        """Return the sequences that defaults of the tables call.

        Other sequences are part of it if they lack privileges that default privileges give.
        """
        found: set[TableKey] = set()
        for table, (schema, name, column), _ in self.live.called_sequences:
            on = ObjectKey("SEQUENCE", schema, name)
            if column is None and (table in {*self.tables, *self.open_tables} or self._lacking([on])):
                found.add(TableKey(schema, name))
        return found

    def _is_declared(self, table: TableKey) -> bool:
        """Return whether row security of *table* can be declared; add a remark if it is disabled."""
        flags = self.live.row_security[table]
        if flags.enabled:
            return True
        if self.live.policies_of(table) or flags.forced:
            self.remarks.append(
                f"the policies or FORCE of {table_name(table)} aren't declared: row security is disabled on "
                "the table, and declarations would enable it. Declare them if you want that"
            )
        return False

    def _unprotected(self) -> set[TableKey]:
        """Return the tables without row security that the declarations of their parents don't cover."""
        found = {table for table in self.live.row_security if table in self.live.without_row_security}
        covered = self.live.heirs_of(self.tables)
        for table in found & covered.keys():
            held = self._held({ObjectKey("TABLE", *table)})
            if roles := sorted({one.grantee for one in held} & self.live.groups_of(self.callers)):
                self.remarks.append(
                    f"autogenerate will revoke the privileges of {', '.join(roles)} on {table_name(table)}: "
                    f"they bypass the row security of {', '.join(sorted(map(table_name, covered[table])))}"
                )
        return found - covered.keys() - {*self.tables, TableKey(None, _ALEMBIC_VERSION)}

    def _has_its_own_privileges(self, table: TableKey) -> bool:
        """Return whether the privileges on *table* differ from those of default privileges."""
        objects = self.live.objects_of([table])
        if self._lacking(objects):
            return True
        more = self._held(objects) - self._given(objects)
        return bool(more) and not any(one.grantor or self._is_refused(one) for one in more)

    def _lacking(self, objects: Collection[ObjectKey]) -> set[Privilege]:
        """Return the privileges that default privileges give on new objects, and that *objects* lack."""
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
        """Return whether the roles of policies can use the functions of schema ``auth``."""
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
                    f"autogenerate will revoke {one.privilege} on {one.name} from {one.grantee}: "
                    f"{one.grantor} granted it, and isn't the owner"
                )
        refused = {one for one in held if self._is_refused(one)}
        self.remarks += [
            f"autogenerate will revoke {', '.join(one.privileges)} on {one.object.name} from {one.grantee}: "
            "policies don't apply to it"
            for one in granted_together(refused)
        ]
        held -= refused
        beyond = held - self._implied(
            policy for policy in self.policies if policy.key not in self.implying_nothing
        )
        # With a grant on columns, a policy doesn't imply the privilege on the table.
        narrowed = {one[:5] for one in beyond if one.column is not None}
        return [one for one in held if one in beyond or one[:5] in narrowed]

    def _on_schemas(self, schemas: Collection[str]) -> Iterator[Privilege]:
        """Yield the privileges on *schemas* that no policy implies; undeclared ones there stay."""
        held: dict[tuple[str, str], set[Privilege]] = {}
        for one in self.live.privileges:
            if one.object_type == "SCHEMA" and one.name in {*schemas} - {AUTH_SCHEMA, SECRET_SCHEMA}:
                held.setdefault((one.name, one.grantee), set()).add(
                    one._replace(grantable=False, grantor=None)
                )
        implied = self._implied(policy for policy in self.policies if policy.key not in self.implying_nothing)
        for (_, grantee), privileges in held.items():
            if not (
                grantee.startswith("pg_")
                or privileges <= implied | {BUILT_IN}
                or any(map(self._is_refused, privileges))
            ):
                yield from privileges

    def _is_refused(self, one: Privilege | DefaultPrivilege) -> bool:
        return one.grantee in self.callers and is_beyond_row_security(one)
