-- Those of these operators that are no part of an extension.
SELECT pg_catalog.format('%I.%s', n.nspname, o.oprname) AS name
  FROM unnest(CAST(:schemas AS pg_catalog.text[]), CAST(:names AS pg_catalog.text[])) AS named (schema, name)
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = named.schema
  JOIN pg_catalog.pg_operator AS o ON o.oprnamespace = n.oid AND o.oprname = named.name
 WHERE NOT EXISTS (
   SELECT FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND d.objid = o.oid AND d.deptype = 'e')
 ORDER BY 1
