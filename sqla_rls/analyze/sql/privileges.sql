SELECT pg_catalog.has_schema_privilege(:role, c.relnamespace, 'USAGE') AS schema_usage,
       pg_catalog.has_table_privilege(:role, c.oid, 'DELETE') AS "delete",
       coalesce((
         SELECT pg_catalog.jsonb_object_agg(a.attname, pg_catalog.jsonb_build_object(
                  'SELECT', pg_catalog.has_column_privilege(:role, c.oid, a.attnum, 'SELECT'),
                  'INSERT', pg_catalog.has_column_privilege(:role, c.oid, a.attnum, 'INSERT'),
                  'UPDATE', pg_catalog.has_column_privilege(:role, c.oid, a.attnum, 'UPDATE')))
           FROM pg_catalog.pg_attribute AS a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}') AS columns,
       coalesce((
         SELECT pg_catalog.jsonb_object_agg(s.oid::pg_catalog.regclass::pg_catalog.text,
                  pg_catalog.has_sequence_privilege(:role, s.oid, 'USAGE')
                  OR pg_catalog.has_sequence_privilege(:role, s.oid, 'UPDATE'))
           FROM pg_catalog.pg_attrdef AS d
           JOIN pg_catalog.pg_depend AS u
             ON u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND u.objid = d.oid
           JOIN pg_catalog.pg_class AS s ON s.oid = u.refobjid AND s.relkind = 'S'
          WHERE d.adrelid = c.oid AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass), '{}') AS sequences
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = CAST(:oid AS pg_catalog.oid)
