"""Reads views, and has Postgres decide whether those that are declared say the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.catalog import read as catalog
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import ObjectKey, TableKey, View

log = autogenerate_log(__name__)

_VIEWS = """
WITH view AS (
  SELECT c.oid, n.nspname, c.relname, c.reloptions
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE c.relkind = 'v' AND (n.nspname, c.relname) IN (SELECT * FROM unnest(:schemas, :views))
)
SELECT v.oid, v.nspname, v.relname, rtrim(pg_catalog.pg_get_viewdef(v.oid), ';') AS definition,
       coalesce(o.security_invoker::boolean, false) AS security_invoker,
       coalesce(o.security_barrier::boolean, false) AS security_barrier, o.check_option,
       pg_catalog.obj_description(v.oid, 'pg_class') AS comment,
       ARRAY(SELECT ARRAY[a.attname::text, d.description]
               FROM pg_catalog.pg_attribute AS a
               JOIN pg_catalog.pg_description AS d
                 ON d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = v.oid
              WHERE a.attrelid = v.oid AND d.objsubid = a.attnum ORDER BY a.attnum) AS column_comments,
       ARRAY(SELECT d.refobjid::bigint
               FROM pg_catalog.pg_rewrite AS r
               JOIN pg_catalog.pg_depend AS d
                 ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
              WHERE r.ev_class = v.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                AND d.refobjid <> v.oid) AS reads
  FROM view AS v,
       LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'security_invoker') AS security_invoker,
                       max(option_value) FILTER (WHERE option_name = 'security_barrier') AS security_barrier,
                       max(option_value) FILTER (WHERE option_name = 'check_option') AS check_option
                  FROM pg_catalog.pg_options_to_table(v.reloptions)) AS o
"""

# What a parent loses, its heirs lose; what a view reads, whoever reads that view does.
_DEPENDENT = """
WITH RECURSIVE taken (relid, attname) AS (
  SELECT c.oid, t.column_name
    FROM unnest(:schemas, :tables, :columns) AS t (schema_name, table_name, column_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid, t.attname FROM taken AS t JOIN pg_catalog.pg_inherits AS i ON i.inhparent = t.relid
), read (view, classid, objid, attnum) AS (
  SELECT r.ev_class, d.refclassid, d.refobjid, d.refobjsubid
    FROM pg_catalog.pg_rewrite AS r
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
   WHERE d.refobjid <> r.ev_class AND r.ev_class >= 16384
), dependent (view) AS (
  SELECT r.view
    FROM read AS r JOIN taken AS t ON r.classid = 'pg_catalog.pg_class'::regclass AND r.objid = t.relid
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.relid AND a.attname = t.attname
   WHERE t.attname IS NULL OR r.attnum = a.attnum
   UNION
  SELECT r.view
    FROM read AS r
    JOIN pg_catalog.pg_proc AS f ON r.classid = 'pg_catalog.pg_proc'::regclass AND r.objid = f.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE (n.nspname, f.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
   UNION
  SELECT r.view
    FROM dependent AS d JOIN read AS r ON r.classid = 'pg_catalog.pg_class'::regclass AND r.objid = d.view
)
SELECT n.nspname, c.relname
  FROM dependent AS d
  JOIN pg_catalog.pg_class AS c ON c.oid = d.view
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

# As Postgres keeps "*".  What a parent gains, its partitions and heirs gain.
_ON_EVERY_COLUMN = """
WITH RECURSIVE grown (relid) AS (
  SELECT c.oid
    FROM unnest(:schemas, :tables) AS t (schema_name, table_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid FROM grown AS g JOIN pg_catalog.pg_inherits AS i ON i.inhparent = g.relid
)
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class AND c.relkind = 'v' AND c.oid >= 16384
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE EXISTS (SELECT FROM grown AS g
                WHERE NOT EXISTS (SELECT attnum FROM pg_catalog.pg_attribute
                                   WHERE attrelid = g.relid AND attnum > 0 AND NOT attisdropped
                                  EXCEPT
                                  SELECT refobjsubid FROM pg_catalog.pg_depend
                                   WHERE classid = 'pg_catalog.pg_rewrite'::regclass AND objid = r.oid
                                     AND refclassid = 'pg_catalog.pg_class'::regclass AND refobjid = g.relid))
"""

# What a view with security_invoker reads, it reads as whoever reads it: a view without, as its owner.
_PAST_ROW_SECURITY = """
WITH RECURSIVE view AS (
  SELECT c.oid, n.nspname, c.relname, c.relowner, c.relacl, c.relkind = 'm' AS is_materialized,
         EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions)
                  WHERE option_name = 'security_invoker' AND option_value::boolean) AS as_invoker
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('v', 'm')
), read (view, relid) AS (
  SELECT v.oid, v.oid FROM view AS v
   WHERE NOT v.as_invoker AND (v.nspname, v.relname) IN (SELECT * FROM unnest(:schemas, :views))
     AND (EXISTS (SELECT FROM pg_catalog.aclexplode(v.relacl) AS a WHERE a.grantee <> v.relowner)
          OR EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = v.oid AND attacl IS NOT NULL))
   UNION
  SELECT r.view, d.refobjid
    FROM read AS r
    JOIN view AS v ON v.oid = r.relid AND (v.as_invoker OR v.oid = r.view)
    JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = v.oid
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
   WHERE d.refclassid = 'pg_catalog.pg_class'::regclass
)
SELECT v.nspname, v.relname, o.rolname AS owner, v.is_materialized, v.oid::regclass::text AS view,
       string_agg(t.relname, ', ' ORDER BY t.relname) AS tables,
       (SELECT string_agg(DISTINCT a.name, ', ')
          FROM pg_catalog.pg_class AS c,
               LATERAL (SELECT c.relacl UNION ALL
                        SELECT attacl FROM pg_catalog.pg_attribute WHERE attrelid = c.oid) AS held (acl),
               pg_catalog.aclexplode(held.acl) AS e,
               LATERAL (SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC'
                             ELSE e.grantee::regrole::text END) AS a (name)
         WHERE c.oid = v.oid AND e.grantee <> c.relowner) AS grantees
  FROM read AS r
  JOIN view AS v ON v.oid = r.view
  JOIN pg_catalog.pg_roles AS o ON o.oid = v.relowner
  JOIN pg_catalog.pg_class AS t ON t.oid = r.relid
 WHERE t.relrowsecurity AND (o.rolsuper OR o.rolbypassrls
       OR NOT t.relforcerowsecurity AND pg_catalog.pg_has_role(o.oid, t.relowner, 'USAGE'))
 GROUP BY v.nspname, v.relname, v.oid, v.is_materialized, o.rolname
 ORDER BY v.nspname, v.relname
"""

# Each is made as a temporary view, and undone by an error, which gives the locks back.  Some definitions
# Postgres doesn't read as it spells them: those that differ are read a second time.
_COMPARING = """
CREATE FUNCTION pg_temp.sqla_rls_views(schemas text[], views text[], definitions text[])
RETURNS TABLE (place int, same boolean, same_columns boolean, refusal text) LANGUAGE plpgsql AS $comparing$
DECLARE
  ours      text;
  theirs    text;
  live      oid;
  temporary oid;
BEGIN
  FOR i IN 1 .. cardinality(definitions) LOOP
    place := i;
    SELECT c.oid INTO STRICT live
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) = (schemas[i], views[i]);
    ours := definitions[i];
    theirs := pg_catalog.pg_get_viewdef(live);
    refusal := NULL;
    same := false;
    BEGIN
      FOR reading IN 1 .. 2 LOOP
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_ours AS ' || ours;
        temporary := to_regclass('pg_temp.sqla_rls_ours');
        ours := pg_catalog.pg_get_viewdef(temporary);
        same_columns := NOT EXISTS (SELECT attnum, attname, atttypid, atttypmod, attcollation
                                      FROM pg_catalog.pg_attribute
                                     WHERE attrelid IN (live, temporary) AND attnum > 0
                                     GROUP BY attnum, attname, atttypid, atttypmod, attcollation
                                    HAVING count(*) = 1);
        same := same_columns AND ours = theirs;
        EXIT WHEN same OR NOT same_columns;
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_theirs AS ' || theirs;
        theirs := pg_catalog.pg_get_viewdef(to_regclass('pg_temp.sqla_rls_theirs'));
        same := ours = theirs;
        EXIT WHEN same;
        DROP VIEW pg_temp.sqla_rls_ours, pg_temp.sqla_rls_theirs;
      END LOOP;
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        NULL;
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        refusal := SQLERRM;
    END;
    RETURN NEXT;
  END LOOP;
END $comparing$
"""
_COMPARE = "SELECT * FROM pg_temp.sqla_rls_views(:schemas, :views, :definitions) ORDER BY place"


@dataclass(frozen=True, slots=True)
class ViewChange:
    """*before* is None for a new view; *replaces*: CREATE OR REPLACE will do."""

    before: View | None
    after: View
    replaces: bool


@dataclass(frozen=True, slots=True)
class Views:
    """Those of the database, and those of the models; each after those that it reads."""

    live: Mapping[TableKey, View] = field(default_factory=dict)
    declared: Mapping[TableKey, View] = field(default_factory=dict)
    #: Those that can't be replaced: their columns differ, or what they read makes room.
    made_anew: frozenset[TableKey] = frozenset()
    #: Those that nobody declared, and that read what goes.
    in_the_way: frozenset[TableKey] = frozenset()

    @property
    def gone(self) -> list[View]:
        """Those that a migration made, and that nobody declares any more."""
        return [view for key, view in self.live.items() if key not in self.declared]

    @property
    def dropped(self) -> list[View]:
        """What goes before the tables change, for good or not; each before those that it reads."""
        return [
            view
            for key, view in reversed([*self.live.items()])
            if key in self.made_anew or key not in self.declared
        ]

    @property
    def created(self) -> list[ViewChange]:
        """What comes when the tables have changed."""
        return [
            ViewChange(
                before, self._with_comments(view), replaces=before is not None and key not in self.made_anew
            )
            for key, view in self.declared.items()
            if (before := self.live.get(key)) != view or key in self.made_anew
        ]

    def _with_comments(self, view: View) -> View:
        if (before := self.live.get(view.key)) is None:
            return view
        return replace(view, comment=before.comment, column_comments=before.column_comments)

    @property
    def objects_made_anew(self) -> set[ObjectKey]:
        """What a migration drops or makes, and with it all privileges on it."""
        created = [change.after for change in self.created if not change.replaces]
        return {view.object for view in (*self.dropped, *created)}


def read(
    connection: Connection,
    declared: Mapping[TableKey, View],
    *,
    made: Collection[TableKey],
    default_schema: str,
    columns: Iterable[tuple[TableKey, str | None]],
    functions: Collection[ObjectKey],
    grown: Collection[TableKey] = (),
) -> Views:
    """*made* are those that migrations made; *columns* (None: the whole table) and *functions* go, or change.

    Tables that are *grown* gain columns.  Without any view there is no statement.
    """
    keys = list({**declared, **dict.fromkeys(made)})
    if not keys:
        return Views()
    live = read_live(connection, keys, default_schema=default_schema)
    compared, made_anew = _compared(connection, {**declared}, live, default_schema)
    made_anew |= {
        key
        for key in _expanded(connection, grown, default_schema) & compared.keys() & live.keys()
        if "*" in declared[key].definition
    }
    changed = [(key, None) for key in live if key in made_anew or key not in declared]
    taken = _dependent(connection, [*columns, *changed], functions, default_schema)
    made_anew |= taken & declared.keys()
    # As it is written, since Postgres has expanded the "*" to columns that may go, or without one that comes.
    compared |= {key: declared[key] for key in made_anew if "*" in declared[key].definition}
    return Views(live, compared, frozenset(made_anew), frozenset(taken - live.keys()))


def read_live(
    connection: Connection, keys: Collection[TableKey], *, default_schema: str
) -> dict[TableKey, View]:
    """What there is of *keys*, each after those that it reads."""
    rows = {row["oid"]: row for row in catalog.rows(connection, _VIEWS, _named(keys, default_schema))}
    found: dict[TableKey, View] = {}
    for oid in TopologicalSorter(
        {oid: rows.keys() & row["reads"] for oid, row in rows.items()}
    ).static_order():
        row = rows[oid]
        view = View(
            schema=None if row["nspname"] == default_schema else row["nspname"],
            name=row["relname"],
            definition=row["definition"].strip(),
            security_invoker=row["security_invoker"],
            security_barrier=row["security_barrier"],
            check_option=row["check_option"],
            comment=row["comment"],
            column_comments=tuple((column, comment) for column, comment in row["column_comments"]),
        )
        found[view.key] = view
    return found


def warn_of_past_row_security(
    connection: Connection, keys: Collection[TableKey], *, default_schema: str
) -> set[TableKey]:
    """Say which of the views *keys* show others what their owner may read past row security; return these."""
    found: set[TableKey] = set()
    for row in catalog.rows(connection, _PAST_ROW_SECURITY, _named(keys, default_schema)) if keys else ():
        found.add(TableKey(None if row["nspname"] == default_schema else row["nspname"], row["relname"]))
        log.warning(
            "%sview %s shows others what its owner %s may read past the row security of %s: %s",
            "materialized " if row["is_materialized"] else "",
            row["relname"],
            row["owner"],
            row["tables"],
            f"REVOKE ALL ON {row['view']} FROM {row['grantees']}, and show callers their rows of it by a "
            "view() with a WHERE and security_invoker=False, or by a function with security_definer=True"
            if row["is_materialized"]
            else "ALTER VIEW … SET (security_invoker = true), or declare it as a view()",
        )
    return found


def _named(keys: Collection[TableKey], default_schema: str) -> dict[str, list[str]]:
    return {"schemas": [one.schema or default_schema for one in keys], "views": [one.name for one in keys]}


def _compared(
    connection: Connection,
    declared: dict[TableKey, View],
    live: Mapping[TableKey, View],
    default_schema: str,
) -> tuple[dict[TableKey, View], set[TableKey]]:
    """*declared*, as it stands in *live* where it says the same, and those that can't be replaced."""
    asked = [key for key in declared if key in live]
    cannot_be_replaced = set(asked)
    arrays = {
        **_named(asked, default_schema),
        "definitions": [declared[key].definition for key in asked],
    }
    if not asked:
        return declared, cannot_be_replaced
    query = text(_COMPARE).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    with catalog.trying(connection, "every view counts as changed"):
        connection.execute(text(_COMPARING))
        for key, row in zip(asked, connection.execute(query, arrays), strict=True):
            if row.refusal is not None:
                log.warning(
                    "view %r counts as changed, since Postgres doesn't read it now: %s", key.name, row.refusal
                )
            elif row.same_columns:
                cannot_be_replaced.remove(key)
            if row.same:
                declared[key] = replace(declared[key], definition=live[key].definition)
    return declared, cannot_be_replaced


def _expanded(connection: Connection, grown: Collection[TableKey], default_schema: str) -> set[TableKey]:
    """The views that name every column of any table that is *grown*, as Postgres keeps a ``*``."""
    if not grown:
        return set()
    parameters = {
        "schemas": [table.schema or default_schema for table in grown],
        "tables": [table.name for table in grown],
    }
    return {
        TableKey(None if row["nspname"] == default_schema else row["nspname"], row["relname"])
        for row in catalog.rows(connection, _ON_EVERY_COLUMN, parameters)
    }


def _dependent(
    connection: Connection,
    columns: Collection[tuple[TableKey, str | None]],
    functions: Collection[ObjectKey],
    default_schema: str,
) -> set[TableKey]:
    """The views, of whatever schema, that read any of *columns* or call any of *functions*."""
    if not (columns or functions):
        return set()
    parameters = {
        "schemas": [table.schema or default_schema for table, _ in columns],
        "tables": [table.name for table, _ in columns],
        "columns": [column for _, column in columns],
        "function_schemas": [one.schema or default_schema for one in functions],
        "functions": [one.name for one in functions],
    }
    return {
        TableKey(None if row["nspname"] == default_schema else row["nspname"], row["relname"])
        for row in catalog.rows(connection, _DEPENDENT, parameters)
    }
