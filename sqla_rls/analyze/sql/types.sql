-- The types of users that run checks, or whose values name objects of the catalog: domains, and the types made of them.
WITH RECURSIVE part (whole, part) AS MATERIALIZED (
  SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type AS t WHERE t.typtype = 'd'
  UNION ALL
  SELECT t.oid, t.typelem FROM pg_catalog.pg_type AS t WHERE t.typelem <> 0
  UNION ALL
  SELECT c.reltype, a.atttypid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
   WHERE c.reltype >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT unnest(ARRAY[r.rngtypid, r.rngmultitypid]), r.rngsubtype FROM pg_catalog.pg_range AS r
), made (whole, leaf) AS (
  SELECT t.oid, t.oid
    FROM pg_catalog.pg_type AS t
   WHERE (t.oid >= 16384 AND t.typtype = 'd')
         OR (t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
             AND t.typname = ANY (CAST(:catalog_types AS pg_catalog.text[])))
  UNION
  SELECT p.whole, made.leaf FROM made JOIN part AS p ON p.part = made.whole AND p.whole >= 16384
)
SELECT n.nspname AS schema,
       t.typname AS name,
       pg_catalog.bool_or(leaf.oid < 16384) AS names_catalog,
       -- Of the type of a row.
       (SELECT coalesce(pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum), '{}')
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.atttypid IN (SELECT m.whole FROM made AS m WHERE m.leaf < 16384)) AS catalog_columns,
       pg_catalog.array_to_string(pg_catalog.array_agg(pg_catalog.concat_ws(' ',
         pg_catalog.format_type(leaf.oid, NULL), pg_catalog.format_type(leaf.typbasetype, leaf.typtypmod),
         leaf.typnotnull, leaf.typcollation::pg_catalog.regcollation)
         ORDER BY pg_catalog.format_type(leaf.oid, NULL)), ', ') AS definition,
       (SELECT coalesce(pg_catalog.array_agg(pg_catalog.pg_get_expr(k.conbin, 0)
                                             ORDER BY k.conname, k.contypid), '{}')
          FROM pg_catalog.pg_constraint AS k
         WHERE k.contype = 'c' AND k.contypid = ANY (pg_catalog.array_agg(leaf.oid))) AS checks
  FROM made
  JOIN pg_catalog.pg_type AS t ON t.oid = made.whole
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  JOIN pg_catalog.pg_type AS leaf ON leaf.oid = made.leaf
 WHERE t.oid >= 16384 AND n.nspname !~ '^pg_'
 GROUP BY t.oid, n.nspname, t.typname, t.typrelid
 ORDER BY 2, 3
