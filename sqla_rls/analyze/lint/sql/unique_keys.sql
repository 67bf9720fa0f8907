-- The unique indexes and exclusion constraints of tables.  Expressions have no column.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS relation,
       x.relname AS name,
       i.indisprimary AS is_primary,
       i.indisexclusion AS is_exclusion,
       pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
       (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY k.place)
          FROM unnest(i.indkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
         WHERE k.place <= i.indnkeyatts) AS columns,
       (SELECT pg_catalog.array_agg(DISTINCT a.attname::pg_catalog.text)
          FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
           AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
           AND d.refobjsubid > 0) AS mentioned
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE (i.indisunique OR i.indisexclusion) AND c.relrowsecurity
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY 1, 2
