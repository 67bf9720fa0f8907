"""Reads pg_catalog into a Snapshot.

One query for each kind of object, however many tables there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Connection, RowMapping, Text, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from sqla_rls.ddl.auth_functions import ExpectedAuthFunctions
from sqla_rls.ddl.script import PINNED, sql_script
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    AUTH_FUNCTIONS,
    KEYHOLDER,
    PUBLIC,
    CalledSequence,
    DefaultPrivilege,
    Membership,
    ObjectKey,
    Policy,
    PolicyKey,
    Privilege,
    Role,
    RowSecurity,
    SequenceKey,
    Snapshot,
    TableKey,
)

log = autogenerate_log(__name__)

_KINDS = {"r": "table", "p": "table", "m": "materialized view", "f": "foreign table"}

_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

# insufficient_privilege, read_only_sql_transaction
_MAY_NOT_TRY = {"42501", "25006"}

# Before PostgreSQL 16 a membership has no option but ADMIN; since then several roles may have granted it.
_ROLES = """
SELECT r.rolname, r.rolcanlogin, r.rolinherit, r.rolbypassrls, g.rolname AS member_of,
       bool_or(m.admin_option) AS admin, bool_or((m.options ->> 'inherit_option')::boolean) AS inherit,
       bool_or((m.options ->> 'set_option')::boolean) AS set_
  FROM pg_catalog.pg_roles AS r
  LEFT JOIN (SELECT a.*, to_jsonb(a) AS options FROM pg_catalog.pg_auth_members AS a) AS m ON m.member = r.oid
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
 GROUP BY r.rolname, r.rolcanlogin, r.rolinherit, r.rolbypassrls, g.rolname
"""

_ROLE_KEYWORDS = """
SELECT current_user::text AS "CURRENT_USER", current_user::text AS "CURRENT_ROLE",
       session_user::text AS "SESSION_USER"
"""

_TABLES = """
SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relkind::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
         AS is_of_extension
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = ANY (:schemas)
"""

# A temporary table is its session's own.
_HEIRS = """
WITH RECURSIVE heir (parent, child) AS (
  SELECT i.inhparent, i.inhrelid
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent AND c.relkind IN ('r', 'p', 'f')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY (:schemas)
   UNION
  SELECT i.inhparent, i.inhrelid FROM heir AS h JOIN pg_catalog.pg_inherits AS i ON i.inhparent = h.child
)
SELECT pn.nspname AS parent_schema, p.relname AS parent, n.nspname, c.relname
  FROM heir AS h
  JOIN pg_catalog.pg_class AS p ON p.oid = h.parent
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
  JOIN pg_catalog.pg_class AS c ON c.oid = h.child AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

_POLICIES = """
SELECT n.nspname, c.relname, p.polname, p.polpermissive,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                     WHEN 'd' THEN 'DELETE' ELSE 'ALL' END AS command,
       ARRAY(SELECT CASE WHEN role = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(role)::text END
               FROM unnest(p.polroles) AS role) AS roles,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS using_,
       pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS with_check,
       pg_catalog.obj_description(p.oid, 'pg_policy') AS comment
  FROM pg_catalog.pg_policy AS p
  JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""
_POLICIES_OF_SCHEMAS = (
    f"{_POLICIES} WHERE n.nspname = ANY (:schemas) ORDER BY n.nspname, c.relname, p.polname"
)

# What a parent loses, its partitions and heirs lose.
_DEPENDENT_POLICIES = f"""
WITH RECURSIVE taken (relid, attname) AS (
  SELECT c.oid, t.column_name
    FROM unnest(:schemas, :tables, :columns) AS t (schema_name, table_name, column_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid, t.attname FROM taken AS t JOIN pg_catalog.pg_inherits AS i ON i.inhparent = t.relid
)
{_POLICIES}
 WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN taken AS t ON t.relid = d.refobjid
                 LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.relid AND a.attname = t.attname
                WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_catalog.pg_class'::regclass
                  AND (t.attname IS NULL OR d.refobjsubid = a.attnum))
 ORDER BY n.nspname, c.relname, p.polname
"""  # noqa: S608 - nothing in it comes from outside

# As Postgres keeps "*".  What a parent gains, its partitions and heirs gain.
_POLICIES_ON_EVERY_COLUMN = f"""
WITH RECURSIVE grown (relid) AS (
  SELECT c.oid
    FROM unnest(:schemas, :tables) AS t (schema_name, table_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid FROM grown AS g JOIN pg_catalog.pg_inherits AS i ON i.inhparent = g.relid
)
{_POLICIES}
 WHERE EXISTS (SELECT FROM grown AS g
                WHERE NOT EXISTS (SELECT attnum FROM pg_catalog.pg_attribute
                                   WHERE attrelid = g.relid AND attnum > 0 AND NOT attisdropped
                                  EXCEPT
                                  SELECT refobjsubid FROM pg_catalog.pg_depend
                                   WHERE classid = 'pg_catalog.pg_policy'::regclass AND objid = p.oid
                                     AND refclassid = 'pg_catalog.pg_class'::regclass AND refobjid = g.relid))
 ORDER BY n.nspname, c.relname, p.polname
"""  # noqa: S608 - nothing in it comes from outside

_CALLING_POLICIES = f"""
{_POLICIES}
 WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                 JOIN pg_catalog.pg_proc AS f ON f.oid = d.refobjid
                 JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.pronamespace
                WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_catalog.pg_proc'::regclass
                  AND (fn.nspname, f.proname) IN (SELECT * FROM unnest(:schemas, :functions)))
 ORDER BY n.nspname, c.relname, p.polname
"""  # noqa: S608 - nothing in it comes from outside

# The columns that own sequences: serial ones, and identity columns.
_SEQUENCE_OWNERS = """
  SELECT d.objid AS sequence, d.refobjid AS relid, d.refobjsubid AS attnum, d.deptype = 'i' AS identity,
         c.relname, a.attname
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
   WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
     AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
     AND d.objid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'S')
"""

# relacl is NULL until something was granted or revoked.
_PRIVILEGES = f"""
WITH sequence_owner AS ({_SEQUENCE_OWNERS}), object AS (
  SELECT t.object_type, n.nspname, coalesce(o.relname, c.relname) AS name, o.attname, c.relowner AS owner,
         coalesce(c.relacl, pg_catalog.acldefault(t.letter, c.relowner)) AS acl,
         CASE WHEN o.sequence IS NOT NULL THEN c.relname END AS sequence
    FROM (VALUES ('r'::"char", 'TABLE', 'r'::"char"), ('p', 'TABLE', 'r'), ('v', 'TABLE', 'r'),
                 ('m', 'TABLE', 'r'), ('f', 'TABLE', 'r'), ('S', 'SEQUENCE', 's'))
           AS t (relkind, object_type, letter)
    JOIN pg_catalog.pg_class AS c USING (relkind)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN sequence_owner AS o ON o.sequence = c.oid
   WHERE n.nspname = ANY (:schemas)
  UNION ALL
  SELECT 'TABLE', n.nspname, c.relname, a.attname, c.relowner, a.attacl, NULL
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.nspname = ANY (:schemas)
  UNION ALL
  SELECT 'FUNCTION', f.schema, concat(f.name, '(' || f.arguments), NULL, p.proowner,
         coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), NULL
    FROM unnest(:function_schemas, :functions, :arguments) AS f (schema, name, arguments)
    JOIN pg_catalog.pg_proc AS p
      ON p.oid = coalesce(pg_catalog.to_regprocedure(format('%I.%I(', f.schema, f.name) || f.arguments)::oid,
                          CASE WHEN f.arguments IS NULL
                               THEN pg_catalog.to_regproc(format('%I.%I', f.schema, f.name))::oid END)
  UNION ALL
  SELECT 'SCHEMA', NULL, n.nspname, NULL, n.nspowner,
         coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)), NULL
    FROM pg_catalog.pg_namespace AS n
   WHERE n.nspname = ANY (:schemas) OR n.nspname IN ('auth', 'public')
  UNION ALL
  SELECT 'DATABASE', NULL, '', NULL, d.datdba, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba)), NULL
    FROM pg_catalog.pg_database AS d
   WHERE d.datname = pg_catalog.current_database()
)
SELECT o.object_type, o.nspname, o.name, o.attname, a.privilege_type, a.is_grantable,
       CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee,
       CASE WHEN a.grantor <> o.owner THEN pg_catalog.pg_get_userbyid(a.grantor)::text END AS grantor,
       o.sequence
  FROM object AS o, pg_catalog.aclexplode(o.acl) AS a
 WHERE a.grantee <> o.owner AND (a.grantee = 0 OR o.object_type <> 'DATABASE')
UNION ALL
SELECT o.object_type, o.nspname, o.name, CASE WHEN o.sequence IS NOT NULL THEN o.attname END, NULL, NULL,
       pg_catalog.pg_get_userbyid(o.owner)::text, NULL, o.sequence
  FROM object AS o
 WHERE o.attname IS NULL OR o.sequence IS NOT NULL
"""  # noqa: S608 - nothing in it comes from outside

# Until something was granted or revoked everywhere, Postgres' own defaults are in force.
_DEFAULT_PRIVILEGES = """
WITH kind (letter, acl_letter, object_type) AS (
  VALUES ('r'::"char", 'r'::"char", 'TABLES'), ('S', 's', 'SEQUENCES'), ('f', 'f', 'FUNCTIONS'),
         ('T', 'T', 'TYPES'), ('n', 'n', 'SCHEMAS')
), me AS (
  SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user
), entry AS (
  SELECT k.object_type, d.defaclnamespace AS namespace, d.defaclacl AS acl, me.oid AS me
    FROM me JOIN pg_catalog.pg_default_acl AS d ON d.defaclrole = me.oid
    JOIN kind AS k ON k.letter = d.defaclobjtype
  UNION ALL
  SELECT k.object_type, 0, pg_catalog.acldefault(k.acl_letter, me.oid), me.oid
    FROM kind AS k, me
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl AS d
                      WHERE d.defaclrole = me.oid AND d.defaclobjtype = k.letter AND d.defaclnamespace = 0)
)
SELECT e.object_type, n.nspname, a.privilege_type,
       CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee
  FROM entry AS e LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = e.namespace,
       pg_catalog.aclexplode(e.acl) AS a
 WHERE a.grantee <> e.me
"""

# Those that columns own, and those that their defaults call.
_SEQUENCES = f"""
WITH sequence_owner AS ({_SEQUENCE_OWNERS}), called AS (
  SELECT sequence, relid, attnum FROM sequence_owner
   UNION
  SELECT s.oid, f.adrelid, f.adnum
    FROM pg_catalog.pg_attrdef AS f
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
    JOIN pg_catalog.pg_class AS s
      ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
)
SELECT n.nspname, c.relname, (o.relid, o.attnum) = (u.relid, u.attnum) AS is_owned, o.identity,
       sn.nspname AS sequence_schema, coalesce(o.relname, s.relname) AS sequence, o.attname
  FROM called AS u
  JOIN pg_catalog.pg_class AS c ON c.oid = u.relid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class AS s ON s.oid = u.sequence
  JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.relnamespace
  LEFT JOIN sequence_owner AS o ON o.sequence = u.sequence
 WHERE n.nspname = ANY (:schemas)
"""  # noqa: S608 - nothing in it comes from outside

_AUTH_FUNCTIONS = f"""
SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt') AS extension,
       ARRAY(SELECT p.proname::text FROM pg_catalog.pg_proc AS p
              WHERE p.pronamespace = pg_catalog.to_regnamespace('auth') AND p.pronargs = 0
                AND p.proname = ANY (:functions)) AS present,
       ARRAY(SELECT made.proname::text FROM (
{sql_script("made_auth_functions.sql")}
         ) AS made WHERE made.proname = ANY (:functions)) AS ours,
       EXISTS (SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0 AND p.prosecdef
                  AND strpos(p.prosrc, 'sqla_rls_secret.signing_key') > 0) AS verifier,
       (SELECT pg_catalog.pg_get_userbyid(c.relowner)::text
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'sqla_rls_secret' AND c.relname = 'signing_key') AS keyholder,
       coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('auth')::oid, 'CREATE'), true)
         AS may_create
"""  # noqa: S608 - nothing in it comes from outside

# A body that is text depends on nothing: there, the name of the schema counts.
_AUTH_IN_USE = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_proc AS f ON f.oid = d.refobjid AND f.pronamespace = pg_catalog.to_regnamespace('auth')
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef AS a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_catalog.pg_class AS c ON c.oid IN (p.polrelid, a.adrelid, r.ev_class)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass
     AND (n.nspname, c.relname) IN (SELECT * FROM unnest(:schemas, :tables))
) OR EXISTS (
  SELECT FROM pg_catalog.pg_proc AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE (n.nspname, f.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
     AND strpos(lower(f.prosrc), 'auth') > 0
) AS in_use
"""

_EDITED = """
WITH function AS (
  SELECT proname, proargtypes, pronamespace, pg_get_function_sqlbody(oid), prosrc, prolang, prorettype,
         proretset, provolatile, proparallel, prosecdef, proleakproof, proisstrict, proconfig
    FROM pg_catalog.pg_proc
   WHERE proname = ANY (:ours)
), live AS (
  SELECT f.*
    FROM function AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE n.nspname IN ('auth', 'sqla_rls_secret')
)
SELECT expected.proname::text
  FROM function AS expected LEFT JOIN live USING (proname, proargtypes)
 WHERE expected.pronamespace = pg_my_temp_schema()
   AND to_jsonb(live) - 'pronamespace' IS DISTINCT FROM to_jsonb(expected) - 'pronamespace'
"""


# The owner of a database keeps what is revoked from PUBLIC; who owns but tables in it doesn't.
_MAY_MAKE_TEMPORARY = """
SELECT format('. Have its owner run: GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), current_user)
 WHERE NOT pg_catalog.has_database_privilege(current_database(), 'TEMPORARY')
"""


_OUT_OF_REACH = """
SELECT nspname, pg_catalog.pg_get_userbyid(nspowner)::text AS owner
  FROM pg_catalog.pg_namespace
 WHERE (nspname = ANY (:schemas) OR nspname = 'auth')
   AND NOT pg_catalog.has_schema_privilege(oid, 'USAGE WITH GRANT OPTION')
"""

_MISSING_ON_SCHEMA = """
SELECT n.nspname, pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner, r.rolname, p.privilege
  FROM pg_catalog.pg_namespace AS n, unnest(:privileges) AS p (privilege), pg_catalog.pg_roles AS r
 WHERE n.nspname = coalesce((SELECT * FROM unnest(:schemas)), current_schema())
   AND r.rolname = ANY (:roles)
   AND NOT pg_catalog.has_schema_privilege(r.rolname, n.oid, p.privilege)
"""


class AuthFunctions(NamedTuple):
    """The functions of schema ``auth``: by the extension, or one by one."""

    extension: bool
    foreign: frozenset[str]  # made by something else
    missing: frozenset[str]
    ours: frozenset[str]
    verifier: bool  # whether they verify, rather than believe
    keyholder: str | None  # who owns the key that they verify with, if it is there
    may_create: bool  # whether the connected role may make those that are missing

    @property
    def signed(self) -> bool:
        return self.verifier or self.keyholder is not None

    @property
    def settled(self) -> bool:
        """Whether ``create_auth_functions`` has nothing to do, or nothing that it is allowed to."""
        return self.extension or not self.missing or not self.may_create

    def warn(self) -> None:
        """Say what is left as it is, if anything is."""
        if self.foreign and not self.extension:
            log.warning(
                "schema auth holds functions that something else made, which are left as they are: %s; "
                "missing: %s",
                ", ".join(sorted(self.foreign)),
                ", ".join(sorted(self.missing)) or "none",
            )
        if self.keyholder not in (None, KEYHOLDER):
            log.warning(
                "the signing key belongs to %s, since %s can't own it: whoever can be that role can read "
                "the key, and be anyone. Never let an application log in as that role, or have a superuser "
                "run sqla-rls auth-functions --signed, too",
                self.keyholder,
                KEYHOLDER,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Live(Snapshot):
    """A database's Snapshot, and what else it takes to compare it with another."""

    default_schema: str
    auth: AuthFunctions
    #: What CURRENT_USER and its like stand for.
    role_keywords: dict[str, str]
    #: Materialized ones, too.
    all_views: frozenset[TableKey]
    #: The tables that have partitions, or may have them.
    partitioned: frozenset[TableKey]
    #: What callers read whole, if they may, and the kind of each; an extension's own are left out.
    without_row_security: Mapping[TableKey, str]
    #: The schemas on which the connected role may not grant, and the owner of each.
    out_of_reach: Mapping[str, str]
    #: The names of sequences that columns own.
    sequence_names: Mapping[TableKey, SequenceKey]


def warn_of_missing_usage(
    connection: Connection, schema: str | None, privileges: Iterable[str], roles: Iterable[str]
) -> None:
    """Log who must grant *roles* the *privileges* on *schema* that a GRANT couldn't give them."""
    parameters = {
        "schemas": [] if schema is None else [schema],
        "privileges": list(privileges),
        "roles": list(roles),
    }
    for row in rows(connection, _MISSING_ON_SCHEMA, parameters):
        _say_who_must_grant(row["privilege"], row["nspname"], row["rolname"], row["owner"])


def warn_of_grants_out_of_reach(live: Live, privileges: Iterable[Privilege]) -> None:
    """Log who must grant the missing *privileges* on schemas that another role owns."""
    everybodys = {(one.name, one.privilege) for one in live.privileges if one.grantee == PUBLIC}
    for one in sorted(privileges, key=str):
        if (one.name, one.privilege) not in everybodys:
            _say_who_must_grant(one.privilege, one.name, one.grantee, live.out_of_reach[one.name])


def _say_who_must_grant(privilege: str, schema: str, role: str, owner: str) -> None:
    log.warning(
        "role %s lacks %s on schema %s, which the migrating role may not grant. Have the owner %s run: "
        "GRANT %s ON SCHEMA %s TO %s",
        role,
        privilege,
        schema,
        owner,
        privilege,
        _quote(schema),
        _quote(role),
    )


def auth_functions(connection: Connection) -> AuthFunctions:
    """What there is in schema ``auth``."""
    (row,) = rows(connection, _AUTH_FUNCTIONS, {"functions": list(AUTH_FUNCTIONS)})
    present = frozenset(row["present"])
    ours = frozenset(row["ours"])
    return AuthFunctions(
        row["extension"],
        present - ours,
        frozenset(AUTH_FUNCTIONS) - present,
        ours,
        row["verifier"],
        row["keyholder"],
        row["may_create"],
    )


def auth_in_use(
    connection: Connection,
    *,
    default_schema: str,
    tables: Iterable[TableKey],
    functions: Iterable[TableKey],
) -> bool:
    """Whether any of *tables* or *functions*, as they are, calls a function of schema ``auth``."""
    named, called = list(tables), list(functions)
    parameters = {
        "schemas": [key.schema or default_schema for key in named],
        "tables": [key.name for key in named],
        "function_schemas": [key.schema or default_schema for key in called],
        "functions": [key.name for key in called],
    }
    (row,) = rows(connection, _AUTH_IN_USE, parameters)
    return bool(row["in_use"])


def _edited(connection: Connection, auth: AuthFunctions) -> bool:
    """Whether functions that were made as they should be no longer are."""
    if auth.extension or not auth.ours:
        return False
    if auth.signed and not (auth.verifier and auth.keyholder):
        log.warning("the functions of schema auth verify callers in part: they were edited by hand")
        return True
    names = [*auth.ours, *["rotate_signing_key"] * auth.signed]
    with trying(connection, "the functions of schema auth count as changed"):
        connection.execute(ExpectedAuthFunctions(signed=auth.signed))
        edited = [row["proname"] for row in rows(connection, _EDITED, {"ours": names})]
        if edited:
            log.warning("schema auth holds functions that were edited by hand: %s", ", ".join(sorted(edited)))
        return bool(edited)
    return True


def dependent_policies(
    connection: Connection, *, default_schema: str, columns: Iterable[tuple[TableKey, str | None]]
) -> list[Policy]:
    """The policies, of whatever table, that depend on any of *columns*; None stands for the whole table."""
    taken = list(columns)
    if not taken:
        return []
    parameters = {
        "schemas": [table.schema or default_schema for table, _ in taken],
        "tables": [table.name for table, _ in taken],
        "columns": [column for _, column in taken],
    }
    return [_policy(row, default_schema) for row in rows(connection, _DEPENDENT_POLICIES, parameters)]


def policies_on_every_column(
    connection: Connection, *, default_schema: str, tables: Collection[TableKey]
) -> set[PolicyKey]:
    """The policies, of whatever table, that name every column of any of *tables*."""
    if not tables:
        return set()
    parameters = {
        "schemas": [table.schema or default_schema for table in tables],
        "tables": [table.name for table in tables],
    }
    return {
        _policy(row, default_schema).key for row in rows(connection, _POLICIES_ON_EVERY_COLUMN, parameters)
    }


def calling_policies(
    connection: Connection, *, default_schema: str, functions: Collection[ObjectKey]
) -> list[Policy]:
    """The policies, of whatever table, that call any of *functions*."""
    if not functions:
        return []
    parameters = {
        "schemas": [one.schema or default_schema for one in functions],
        "functions": [one.name for one in functions],
    }
    return [_policy(row, default_schema) for row in rows(connection, _CALLING_POLICIES, parameters)]


def read(
    connection: Connection,
    *,
    default_schema: str,
    schemas: Collection[str],
    objects: Collection[ObjectKey] = (),
    is_compared: Callable[[str], bool] = bool,
) -> Live:
    """Everything that is managed, as the database has it, of the tables in *schemas* and of *objects*.

    With the tables come their partitions and heirs, in any schema that *is_compared*.
    """

    def table_key(row: RowMapping, schema: str = "nspname", name: str = "relname") -> TableKey:
        return _table_key(row, default_schema, schema, name)

    names = {"schemas": list(schemas)}
    policies = [_policy(row, default_schema) for row in rows(connection, _POLICIES_OF_SCHEMAS, names)]
    sequences = rows(connection, _SEQUENCES, names)
    heirs = heirs_in(connection, default_schema=default_schema, schemas=schemas, is_compared=is_compared)
    objects = [
        *objects,
        *(ObjectKey("TABLE", *heir) for found in heirs.values() for heir in found),
        *(ObjectKey("SEQUENCE", row["sequence_schema"], row["sequence"]) for row in sequences),
    ]
    looked_into = _holders_of(objects, default_schema, schemas)
    held = rows(connection, _PRIVILEGES, looked_into)
    # An owner holds its privileges by nature: it comes without any.
    privileges = [
        Privilege(
            row["object_type"],
            *table_key(row, name="name"),
            row["grantee"],
            row["privilege_type"],
            row["attname"],
            row["is_grantable"],
            row["grantor"],
        )
        for row in held
    ]
    roles = rows(connection, _ROLES)

    def sequence_key(row: RowMapping) -> SequenceKey:
        return SequenceKey(*table_key(row, "sequence_schema", "sequence"), row["attname"])

    def owned_sequences(*, identity: bool) -> frozenset[SequenceKey]:
        return frozenset(
            sequence_key(row) for row in sequences if row["is_owned"] and row["identity"] is identity
        )

    relations = rows(connection, _TABLES, names)
    auth = auth_functions(connection)
    (keywords,) = rows(connection, _ROLE_KEYWORDS)
    return Live(
        default_schema=default_schema,
        auth=auth,
        out_of_reach={
            row["nspname"]: row["owner"]
            for row in rows(connection, _OUT_OF_REACH, {"schemas": looked_into["schemas"]})
        },
        role_keywords=dict(keywords),
        all_views=frozenset(table_key(row) for row in relations if row["relkind"] in "vm"),
        partitioned=frozenset(table_key(row) for row in relations if row["relkind"] == "p"),
        without_row_security={
            table_key(row): _KINDS[row["relkind"]]
            for row in relations
            if not (row["relkind"] == "v" or row["relrowsecurity"] or row["is_of_extension"])
        },
        roles={
            row["rolname"]: Role(
                row["rolname"],
                login=row["rolcanlogin"],
                inherit=row["rolinherit"],
                bypassrls=row["rolbypassrls"],
            )
            for row in roles
        },
        memberships=frozenset(
            Membership(row["member_of"], row["rolname"], row["admin"], row["inherit"], row["set_"])
            for row in roles
            if row["member_of"] is not None
        ),
        auth_functions=auth.settled and not _edited(connection, auth),
        heirs=heirs,
        row_security={
            (key := table_key(row)): RowSecurity(
                table=key, enabled=row["relrowsecurity"], forced=row["relforcerowsecurity"]
            )
            for row in relations
            if row["relkind"] in "rp"
        },
        policies={policy.key: policy for policy in policies},
        privileges=frozenset(one for one in privileges if one.privilege),
        owners=frozenset(one[:4] for one in privileges if not one.privilege),
        default_privileges=default_privileges(connection),
        sequences=owned_sequences(identity=False),
        identity_sequences=owned_sequences(identity=True),
        called_sequences=frozenset(
            CalledSequence(table_key(row), sequence_key(row)) for row in sequences if not row["is_owned"]
        ),
        sequence_names={
            table_key(row, name="sequence"): SequenceKey(*table_key(row, name="name"), row["attname"])
            for row in held
            if row["sequence"] is not None
        },
    )


def heirs_in(
    connection: Connection,
    *,
    default_schema: str,
    schemas: Collection[str],
    is_compared: Callable[[str], bool] = bool,
) -> dict[TableKey, set[TableKey]]:
    """The partitions and inheritance children of the tables in *schemas*, and theirs."""
    found: dict[TableKey, set[TableKey]] = {}
    for row in rows(connection, _HEIRS, {"schemas": list(schemas)}):
        if is_compared(row["nspname"]):
            parent = _table_key(row, default_schema, "parent_schema", "parent")
            found.setdefault(parent, set()).add(_table_key(row, default_schema))
    return found


def default_privileges(connection: Connection) -> frozenset[DefaultPrivilege]:
    """Those of the connected role."""
    return frozenset(
        DefaultPrivilege(row["object_type"], row["nspname"], row["grantee"], row["privilege_type"])
        for row in rows(connection, _DEFAULT_PRIVILEGES)
    )


def _holders_of(
    objects: Collection[ObjectKey], default_schema: str, schemas: Collection[str]
) -> dict[str, Any]:
    """The parameters of _PRIVILEGES."""
    functions = [
        (one.schema or default_schema, name, arguments if parenthesis else None)
        for one in objects
        if one.object_type == "FUNCTION"
        for name, parenthesis, arguments in [one.name.partition("(")]
    ]
    others = {one.name if one.object_type == "SCHEMA" else one.schema or default_schema for one in objects}
    return {
        "schemas": sorted({*schemas, *others}),
        "function_schemas": [schema for schema, _, _ in functions],
        "functions": [name for _, name, _ in functions],
        "arguments": [arguments for _, _, arguments in functions],
    }


@contextmanager
def pinned(connection: Connection) -> Iterator[None]:
    """Inside, expressions are read and spelled in one way, whatever the session's settings."""
    # Without a transaction nothing could be undone.
    dbapi_connection = connection.connection.dbapi_connection
    autocommit = dbapi_connection and connection.dialect.detect_autocommit_setting(dbapi_connection)
    if autocommit:
        connection.exec_driver_sql("BEGIN")
    try:
        with undone(connection):
            connection.execute(text(f"SELECT {PINNED}"))
            yield
    finally:
        if autocommit:
            connection.exec_driver_sql("ROLLBACK")


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    """Whatever is done inside is rolled back, settings included."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


@contextmanager
def trying(connection: Connection, otherwise: str) -> Iterator[None]:
    """As *undone*; where this role may make no temporary objects here, what follows is skipped and said."""
    try:
        with undone(connection):
            yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _MAY_NOT_TRY:
            raise
        cure = "".join(connection.scalars(text(_MAY_MAKE_TEMPORARY)))
        log.warning(
            "%s, since nothing temporary can be made to compare it with: %s%s", otherwise, error.orig, cure
        )


def _table_key(
    row: RowMapping, default_schema: str, schema: str = "nspname", name: str = "relname"
) -> TableKey:
    return TableKey(None if row[schema] == default_schema else row[schema], row[name])


def _policy(row: RowMapping, default_schema: str) -> Policy:
    return Policy(
        table=_table_key(row, default_schema),
        name=row["polname"],
        permissive=row["polpermissive"],
        command=row["command"],
        roles=frozenset(row["roles"]),
        using=row["using_"],
        with_check=row["with_check"],
        comment=row["comment"],
    )


def rows(connection: Connection, query: str, parameters: dict[str, Any] | None = None) -> list[RowMapping]:
    arrays = [bindparam(name, type_=ARRAY(Text())) for name in parameters or ()]
    found = connection.execute(text(query).bindparams(*arrays), parameters or {})
    return list(found.mappings().all())
