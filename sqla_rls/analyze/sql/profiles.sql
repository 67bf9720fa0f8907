-- What each role may do with each relation, before row security.  Functions of Postgres take 0 for PUBLIC.
WITH r (oid, rolname, rolsuper, rolbypassrls) AS (
  SELECT e.oid, e.rolname::pg_catalog.text, e.rolsuper, e.rolbypassrls FROM pg_catalog.pg_roles AS e
   UNION ALL
  SELECT 0::pg_catalog.oid, 'PUBLIC', false, false
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS e WHERE e.rolname = 'PUBLIC')
)
SELECT c.oid::pg_catalog.int8 AS oid,
       r.rolname AS role,
       pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE') AS usage,
       pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE') AS "delete",
       coalesce(x.selects, '{}') AS selects,
       coalesce(x.inserts, '{}') AS inserts,
       coalesce(x.updates, '{}') AS updates,
       r.rolsuper OR r.rolbypassrls AS bypasses,
       pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') AS owns,
       coalesce((
         SELECT pg_catalog.array_agg(p.polname::pg_catalog.text ORDER BY p.polname)
           FROM pg_catalog.pg_policy AS p
          WHERE p.polrelid = c.oid AND (0 = ANY (p.polroles) OR EXISTS (
            SELECT FROM unnest(p.polroles) AS named (oid)
             WHERE named.oid <> 0 AND pg_catalog.pg_has_role(r.oid, named.oid, 'USAGE')))), '{}') AS policies
  FROM pg_catalog.pg_class AS c
 CROSS JOIN r
 CROSS JOIN LATERAL (
   SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum)
            FILTER (WHERE pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')) AS selects,
          pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum)
            FILTER (WHERE pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'INSERT')) AS inserts,
          pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum)
            FILTER (WHERE pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'UPDATE')) AS updates
     FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS x
 WHERE c.oid = ANY (CAST(:oids AS pg_catalog.oid[])) AND r.rolname = ANY (CAST(:roles AS pg_catalog.text[]))
 ORDER BY 1, 2
