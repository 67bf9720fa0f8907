SELECT c.oid::pg_catalog.int8 AS oid,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
       pg_catalog.quote_ident(c.relname) AS alias,
       pg_catalog.quote_ident(n.nspname) AS schema,
       c.relkind::pg_catalog.text AS kind,
       c.relrowsecurity AS has_row_security,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       coalesce((SELECT o.option_value::pg_catalog.bool FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
                  WHERE o.option_name = 'security_invoker'), false) AS is_invoker,
       pg_catalog.row_security_active(c.oid) AS hides_rows,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', a.attname,
                  'quoted', pg_catalog.quote_ident(a.attname),
                  'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                  'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                  'generated', CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                  -- Columns of INCLUDE come last in indkey.
                  'key_place', (
                    SELECT i.place FROM unnest(k.indkey) WITH ORDINALITY AS i (attnum, place)
                     WHERE i.attnum = a.attnum AND i.place <= k.indnkeyatts),
                  'is_identity', a.attidentity <> '',
                  'is_always_generated', a.attgenerated <> '' OR a.attidentity = 'a',
                  'not_null', a.attnotnull,
                  'sequence', (
                    SELECT s.oid::pg_catalog.regclass::pg_catalog.text
                      FROM pg_catalog.pg_depend AS u JOIN pg_catalog.pg_class AS s ON s.oid = u.refobjid
                     WHERE u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND u.objid = d.oid
                       AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.relkind = 'S'
                     LIMIT 1))
                ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute AS a
           LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           LEFT JOIN pg_catalog.pg_index AS k ON k.indrelid = a.attrelid AND k.indisprimary
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid = pg_catalog.to_regclass(:name)
