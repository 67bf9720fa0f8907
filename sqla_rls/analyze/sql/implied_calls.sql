-- The functions that users' operators and casts call.  "target" is the type of a cast's result.
SELECT 'operator' AS kind, n.nspname AS schema, o.oprname AS name, false AS is_implicit,
       m.nspname AS function_schema, f.proname AS function_name
  FROM pg_catalog.pg_operator AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
  JOIN pg_catalog.pg_proc AS f ON f.oid = o.oprcode
  JOIN pg_catalog.pg_namespace AS m ON m.oid = f.pronamespace
 WHERE o.oid >= 16384 AND NOT EXISTS (
   SELECT FROM pg_catalog.pg_depend AS e
    WHERE e.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND e.objid = o.oid AND e.deptype = 'e')
UNION ALL
SELECT 'cast', n.nspname, t.typname, k.castcontext <> 'e', m.nspname, f.proname
  FROM pg_catalog.pg_cast AS k
  JOIN pg_catalog.pg_type AS c ON c.oid = k.casttarget
  -- The parser names an array by its elements.
  JOIN pg_catalog.pg_type AS t ON t.oid = CASE WHEN c.typcategory = 'A' AND c.typelem <> 0 THEN c.typelem ELSE c.oid END
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  JOIN pg_catalog.pg_proc AS f ON f.oid = k.castfunc
  JOIN pg_catalog.pg_namespace AS m ON m.oid = f.pronamespace
 WHERE k.oid >= 16384 AND NOT EXISTS (
   SELECT FROM pg_catalog.pg_depend AS e
    WHERE e.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass AND e.objid = k.oid AND e.deptype = 'e')
 ORDER BY 1, 2, 3, 4, 5, 6
