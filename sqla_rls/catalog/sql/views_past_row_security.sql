-- A view with security_invoker reads its tables as the role that queries it, any other view as its owner.
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
