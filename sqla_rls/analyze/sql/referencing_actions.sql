-- The foreign keys that refer to table :oid, what :command does by them, and why that may fail.
SELECT f.conname AS name,
       f.conrelid::pg_catalog.int8 AS source_oid,
       f.conrelid::pg_catalog.regclass::pg_catalog.text AS source,
       k.action,
       -- PostgreSQL 18.
       coalesce(pg_catalog.to_jsonb(f) ->> 'conperiod', 'false') = 'true' AS is_period,
       pg_catalog.row_security_active(f.conrelid) AS hides_rows,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY u.place)
          FROM unnest(f.conkey) WITH ORDINALITY AS u (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = u.number) AS source_columns,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY u.place)
          FROM unnest(f.confkey) WITH ORDINALITY AS u (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = u.number) AS columns,
       (SELECT min(a.attname::pg_catalog.text)
          FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         WHERE a.attrelid = f.conrelid AND a.attnum = ANY (k.changed) AND (a.attnotnull OR t.typnotnull)) AS not_null,
       -- A constraint that the changed row may break.
       coalesce(
         (SELECT min(c.conname::pg_catalog.text) FROM pg_catalog.pg_constraint AS c
           WHERE c.conrelid = f.conrelid AND c.conkey && k.changed
             AND (c.contype IN ('c', 'x') OR c.contype = 'f' AND c.conparentid = 0
                  AND (c.oid <> f.oid AND k.action <> 'n' OR c.confmatchtype = 'f' AND k.action = 'n'))),
         (SELECT min(c.conname::pg_catalog.text) FROM pg_catalog.pg_constraint AS c
           WHERE c.contype = 'f' AND c.confrelid = f.conrelid AND c.confkey && k.changed),
         (SELECT min(i.indexrelid::pg_catalog.regclass::pg_catalog.text) FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = f.conrelid AND i.indisunique
             AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
                  OR i.indkey::pg_catalog.int2[] && k.changed
                     AND CASE k.action WHEN 'c' THEN NOT i.indkey::pg_catalog.int2[] @> f.conkey
                                       -- PostgreSQL 15.
                                       ELSE coalesce(pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct', 'false')
                                            = 'true' END)),
         (SELECT min(t.typname::pg_catalog.text)
            FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
           WHERE a.attrelid = f.conrelid AND a.attnum = ANY (k.changed) AND t.typtype = 'd'),
         (SELECT 'the partition key' FROM pg_catalog.pg_partitioned_table AS p
           WHERE p.partrelid = f.conrelid
             AND (p.partexprs IS NOT NULL OR p.partattrs::pg_catalog.int2[] && k.changed))) AS obstacle
  FROM pg_catalog.pg_constraint AS f
  JOIN LATERAL (
    SELECT CASE CAST(:command AS pg_catalog.text) WHEN 'DELETE' THEN f.confdeltype ELSE f.confupdtype END AS action,
           -- ON DELETE SET NULL (column), of PostgreSQL 15.
           CASE WHEN CAST(:command AS pg_catalog.text) = 'DELETE' AND pg_catalog.jsonb_typeof(s.named) = 'array'
                THEN (SELECT pg_catalog.array_agg(n::pg_catalog.int2)
                        FROM pg_catalog.jsonb_array_elements_text(s.named) AS n)
                ELSE f.conkey END AS changed
      FROM (SELECT pg_catalog.to_jsonb(f) -> 'confdelsetcols' AS named) AS s) AS k ON true
 WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = CAST(:oid AS pg_catalog.oid)
   -- Before PostgreSQL 18 every constraint is enforced.
   AND coalesce(pg_catalog.to_jsonb(f) ->> 'conenforced', 'true') = 'true'
 ORDER BY f.conname
