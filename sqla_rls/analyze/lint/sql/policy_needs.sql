-- The relations, columns and functions that policies refer to and that a role of the policy may not use.
WITH needs AS MATERIALIZED (
  SELECT DISTINCT p.oid AS policy, p.polrelid, p.polname, p.polroles, d.refclassid, d.refobjid, d.refobjsubid
    FROM pg_catalog.pg_policy AS p
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
   WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
      OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> p.polrelid
)
SELECT pg_catalog.format('%I.%I', t.nspname, c.relname) AS relation,
       n.polname AS policy,
       r.rolname AS role,
       CASE WHEN f.oid IS NULL THEN 'relation' ELSE 'function' END AS kind,
       coalesce(f.oid::pg_catalog.regprocedure::pg_catalog.text, pg_catalog.format('%I.%I', y.nspname, x.relname))
         AS object,
       pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum) FILTER (WHERE a.attname IS NOT NULL)
         AS columns
  FROM needs AS n
  JOIN pg_catalog.pg_roles AS r
    ON (r.oid = ANY (n.polroles) OR 0 = ANY (n.polroles))
   AND NOT r.rolsuper AND NOT r.rolbypassrls AND r.rolname !~ '^pg_'
  JOIN pg_catalog.pg_class AS c ON c.oid = n.polrelid
  JOIN pg_catalog.pg_namespace AS t ON t.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_proc AS f
    ON n.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = n.refobjid
  LEFT JOIN pg_catalog.pg_class AS x
    ON n.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.oid = n.refobjid
   AND x.relkind IN ('r', 'p', 'v', 'm', 'f')
  LEFT JOIN pg_catalog.pg_namespace AS y ON y.oid = x.relnamespace
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.oid AND a.attnum = n.refobjsubid AND n.refobjsubid > 0
 WHERE CASE
         WHEN f.oid IS NOT NULL THEN NOT pg_catalog.has_function_privilege(r.oid, f.oid, 'EXECUTE')
         WHEN x.oid IS NULL THEN false
         WHEN a.attnum IS NOT NULL THEN NOT pg_catalog.has_column_privilege(r.oid, x.oid, a.attnum, 'SELECT')
         ELSE NOT pg_catalog.has_any_column_privilege(r.oid, x.oid, 'SELECT')
       END
   AND (pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
        OR pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE'))
 GROUP BY 1, 2, 3, 4, 5
 ORDER BY 1, 2, 3, 4, 5
