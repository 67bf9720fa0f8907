SELECT f.conname AS name,
       f.conrelid::pg_catalog.regclass::pg_catalog.text AS source,
       pg_catalog.row_security_active(f.conrelid) AS hides_rows,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY k.place)
          FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number) AS source_columns,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY k.place)
          FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number) AS columns
  FROM pg_catalog.pg_constraint AS f
 WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = CAST(:oid AS pg_catalog.oid)
   -- NO ACTION and RESTRICT refuse the command.
   AND CASE CAST(:command AS pg_catalog.text) WHEN 'DELETE' THEN f.confdeltype ELSE f.confupdtype END IN ('a', 'r')
   -- Before PostgreSQL 18 every constraint is enforced.
   AND coalesce(pg_catalog.to_jsonb(f) ->> 'conenforced', 'true') = 'true'
 ORDER BY f.conname
