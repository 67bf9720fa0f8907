-- Types, and sequences that no column owns, which policies, functions, views or column defaults use.
WITH named AS (
  SELECT 'pg_catalog.pg_type'::regclass AS classid, t.oid, t.typarray AS other, t.typnamespace AS namespace,
         CASE t.typtype WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum' WHEN 'r' THEN 'range type'
                        ELSE 'composite type' END AS kind,
         t.typname AS name
    FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
   WHERE t.typtype IN ('d', 'e', 'r') OR t.typtype = 'c' AND c.relkind = 'c'
   UNION ALL
  SELECT 'pg_catalog.pg_class'::regclass, s.oid, 0, s.relnamespace, 'sequence', s.relname
    FROM pg_catalog.pg_class AS s
   WHERE s.relkind = 'S' AND NOT EXISTS ({sequence_owner})
)
SELECT kind, n.nspname, name AS relname
  FROM named JOIN pg_catalog.pg_namespace AS n ON n.oid = namespace
 WHERE n.nspname = ANY (:schemas)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                    WHERE e.classid = named.classid AND e.objid = named.oid AND e.deptype = 'e')
   AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.refclassid = named.classid AND d.refobjid IN (named.oid, other)
                  AND d.classid IN ('pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_proc'::regclass,
                                    'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_attrdef'::regclass))
 ORDER BY kind, n.nspname, name
