-- The operators by which an index finds rows of one table, and which aren't leakproof.  Of each index, the first.
SELECT DISTINCT ON (c.oid)
       c.relname AS index,
       coalesce(a.attname, '') AS "column",
       pg_catalog.pg_get_indexdef(c.oid, 1, false) AS expression,
       pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS operator,
       CASE WHEN r.typtype = 'p' THEN k.type ELSE pg_catalog.format_type(r.oid, NULL) END AS "right"
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_opclass AS d ON d.oid = i.indclass[0]
  JOIN pg_catalog.pg_amop AS m ON m.amopfamily = d.opcfamily AND m.amoppurpose = 's'
  JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
  JOIN pg_catalog.pg_proc AS f ON f.oid = o.oprcode
  JOIN pg_catalog.pg_type AS r ON r.oid = o.oprright
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 CROSS JOIN LATERAL (
   SELECT pg_catalog.format_type(x.atttypid, NULL) AS type
     FROM pg_catalog.pg_attribute AS x
    WHERE x.attrelid = CASE WHEN i.indkey[0] = 0 THEN c.oid ELSE i.indrelid END
      AND x.attnum = CASE WHEN i.indkey[0] = 0 THEN 1 ELSE i.indkey[0] END) AS k
 WHERE i.indrelid = CAST(:oid AS pg_catalog.oid) AND NOT i.indisunique AND i.indpred IS NULL
   AND NOT f.proleakproof AND o.oprname IN ('=', '@>', '&&', '@@')
   AND (m.amoplefttype = d.opcintype OR d.opcintype IN (SELECT p.oid FROM pg_catalog.pg_type AS p WHERE p.typtype = 'p'))
 ORDER BY c.oid, o.oprname = '=' DESC, m.amopstrategy
