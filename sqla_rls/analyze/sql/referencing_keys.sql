SELECT f.conname AS name,
       f.conrelid::pg_catalog.regclass::pg_catalog.text AS source,
       pg_catalog.row_security_active(f.conrelid) AS hides_rows,
       {key_columns} AS source_columns,
       {referenced_columns} AS columns
  FROM pg_catalog.pg_constraint AS f
 WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = CAST(:oid AS pg_catalog.oid)
   -- NO ACTION and RESTRICT refuse the command.
   AND CASE CAST(:command AS pg_catalog.text) WHEN 'DELETE' THEN f.confdeltype ELSE f.confupdtype END IN ('a', 'r')
   -- Before PostgreSQL 18 every constraint is enforced.
   AND coalesce(pg_catalog.to_jsonb(f) ->> 'conenforced', 'true') = 'true'
 ORDER BY f.conname
