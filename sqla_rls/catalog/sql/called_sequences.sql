-- Those that column defaults call, without those that the column owns.  The names come after these are left out.
WITH called AS MATERIALIZED (
  SELECT s.oid, s.relname, s.relkind, s.relnamespace, f.adrelid
    FROM pg_catalog.pg_attrdef AS f
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
    JOIN pg_catalog.pg_class AS s
      ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS o
                      WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = s.oid
                        AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.refobjid = f.adrelid
                        AND o.refobjsubid = f.adnum AND o.deptype IN ('a', 'i'))
)
SELECT n.nspname, c.relname, sn.nspname AS sequence_schema, coalesce(o.relname, s.relname) AS sequence, o.attname
  FROM called AS s
  JOIN pg_catalog.pg_class AS c ON c.oid = s.adrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.relnamespace
  LEFT JOIN LATERAL (
{sequence_owner}
       ) AS o ON true
 WHERE n.nspname = ANY (:schemas)
