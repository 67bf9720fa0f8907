-- The privileges on tables that no policy limits, of the roles among :roles.
SELECT c.oid::pg_catalog.int8 AS oid, r.rolname AS role, p.privilege,
       pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') AS owns
  FROM pg_catalog.pg_class AS c CROSS JOIN pg_catalog.pg_roles AS r
 CROSS JOIN (VALUES ('TRUNCATE'), ('TRIGGER')) AS p (privilege)
 WHERE c.relkind IN ('r', 'p')
   AND r.rolname = ANY (CAST(:roles AS pg_catalog.text[]))
   AND pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
   AND pg_catalog.has_table_privilege(r.oid, c.oid, p.privilege)
 ORDER BY 1, 2, 3
