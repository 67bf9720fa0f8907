-- The foreign keys whose two tables have row security; "restricts" if hidden rows keep a target from its end.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS child,
       pg_catalog.format('%I.%I', t.nspname, p.relname) AS parent,
       k.conname AS name,
       k.confdeltype IN ('a', 'r') AS restricts,
       (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY x.place)
          FROM unnest(k.conkey) WITH ORDINALITY AS x (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = x.number) AS columns
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class AS p ON p.oid = k.confrelid
  JOIN pg_catalog.pg_namespace AS t ON t.oid = p.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND p.relrowsecurity
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY 1, 2, 3
