-- The sequences, their owners, and the columns that they number: by a default, or as an identity.
SELECT pg_catalog.format('%I.%I', n.nspname, s.relname) AS sequence,
       n.nspname AS schema,
       pg_catalog.pg_get_userbyid(s.relowner) AS owner,
       coalesce((
         SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(
                  pg_catalog.format('%I.%I', t.nspname, c.relname), a.attname, a.attidentity <> ''))
           FROM pg_catalog.pg_depend AS d
           LEFT JOIN pg_catalog.pg_attrdef AS e
             ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.oid = d.objid
           JOIN pg_catalog.pg_class AS c ON c.oid = coalesce(e.adrelid, d.refobjid)
           JOIN pg_catalog.pg_namespace AS t ON t.oid = c.relnamespace
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = coalesce(e.adnum, d.refobjsubid)
          WHERE (e.oid IS NOT NULL AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = s.oid)
             OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.oid AND d.deptype = 'i'
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0)
       ), '[]') AS columns
  FROM pg_catalog.pg_class AS s
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
 WHERE s.relkind = 'S' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = s.oid AND e.deptype = 'e')
 ORDER BY 1
