-- The sequences in column defaults, and the roles that may insert a row and may not use them.
SELECT DISTINCT pg_catalog.format('%I.%I', t.nspname, c.relname) AS relation,
       a.attname AS column,
       pg_catalog.format('%I.%I', n.nspname, s.relname) AS sequence,
       r.rolname AS role
  FROM pg_catalog.pg_attrdef AS e
  JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = e.oid
                                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
  JOIN pg_catalog.pg_class AS c ON c.oid = e.adrelid
  JOIN pg_catalog.pg_namespace AS t ON t.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = e.adrelid AND a.attnum = e.adnum
  JOIN pg_catalog.pg_roles AS r ON NOT r.rolsuper AND r.rolname !~ '^pg_'
 WHERE NOT EXISTS (
         SELECT FROM pg_catalog.pg_depend AS o
          WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = c.oid AND o.deptype = 'e')
   AND pg_catalog.has_any_column_privilege(r.oid, c.oid, 'INSERT')
   AND NOT pg_catalog.has_sequence_privilege(r.oid, s.oid, 'USAGE')
   AND NOT pg_catalog.has_sequence_privilege(r.oid, s.oid, 'UPDATE')
 ORDER BY 1, 2, 3, 4
