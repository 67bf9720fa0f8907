SELECT f.conname AS name,
       f.confrelid::pg_catalog.regclass::pg_catalog.text AS target,
       f.confmatchtype = 'f' AS is_full,
       -- PostgreSQL 18.
       coalesce(pg_catalog.to_jsonb(f) ->> 'conperiod', 'false') = 'true' AS is_period,
       pg_catalog.row_security_active(f.confrelid) AS hides_rows,
       {key_columns} AS columns,
       {referenced_columns} AS target_columns
  FROM pg_catalog.pg_constraint AS f
 WHERE f.contype = 'f' AND f.conrelid = CAST(:oid AS pg_catalog.oid)
       -- Before PostgreSQL 18 every constraint is enforced.
       AND coalesce(pg_catalog.to_jsonb(f) ->> 'conenforced', 'true') = 'true'
 ORDER BY f.conname
