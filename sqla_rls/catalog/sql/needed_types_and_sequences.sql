-- Types, and sequences that no column owns, each with an object that uses it: a policy, a function, a view, or a column
-- default that calls the sequence.  A column of the type is the models' own.
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
), part AS (
  SELECT named.*, classid AS partclass, part FROM named, unnest(ARRAY[oid, other]) AS part
   UNION ALL
  -- The constructors of a range type.
  SELECT named.*, d.classid, d.objid
    FROM named JOIN pg_catalog.pg_depend AS d ON d.refclassid = named.classid AND d.refobjid = named.oid
   WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'i'
)
SELECT DISTINCT part.kind, n.nspname, part.name AS relname,
       CASE d.classid WHEN 'pg_catalog.pg_proc'::regclass THEN 'FUNCTION'
                      WHEN 'pg_catalog.pg_rewrite'::regclass THEN 'TABLE' END AS user_type,
       un.nspname AS user_schema, coalesce(p.proname, v.relname) AS user_name,
       concat(p.proname, '(', pg_catalog.oidvectortypes(p.proargtypes), ')') AS user_signature
  FROM part JOIN pg_catalog.pg_namespace AS n ON n.oid = part.namespace
  JOIN pg_catalog.pg_depend AS d ON d.refclassid = part.partclass AND d.refobjid = part.part AND d.deptype <> 'i'
  LEFT JOIN pg_catalog.pg_proc AS p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid
  LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
  LEFT JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class
  LEFT JOIN pg_catalog.pg_namespace AS un ON un.oid IN (p.pronamespace, v.relnamespace)
 WHERE n.nspname = ANY (:schemas)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                    WHERE e.classid = part.classid AND e.objid = part.oid AND e.deptype = 'e')
   AND (d.classid IN ('pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_proc'::regclass,
                      'pg_catalog.pg_rewrite'::regclass)
        OR part.kind = 'sequence' AND d.classid = 'pg_catalog.pg_attrdef'::regclass)
 ORDER BY part.kind, n.nspname, part.name
