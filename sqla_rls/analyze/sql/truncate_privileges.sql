SELECT c.oid::pg_catalog.int8 AS oid, r.rolname AS role
  FROM pg_catalog.pg_class AS c CROSS JOIN pg_catalog.pg_roles AS r
 WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity
   AND r.rolname = ANY (CAST(:roles AS pg_catalog.text[]))
   AND pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
   AND pg_catalog.has_table_privilege(r.oid, c.oid, 'TRUNCATE')
 ORDER BY 1, 2
