-- Those that columns own, and those that their defaults call.
WITH called AS (
  SELECT s.oid AS sequence, o.relid, o.attnum
    FROM pg_catalog.pg_class AS s
    JOIN LATERAL (
{sequence_owner}
         ) AS o ON true
   UNION
  SELECT s.oid, f.adrelid, f.adnum
    FROM pg_catalog.pg_attrdef AS f
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
    JOIN pg_catalog.pg_class AS s
      ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
)
SELECT n.nspname, c.relname, (o.relid, o.attnum) = (u.relid, u.attnum) AS is_owned, o.identity,
       sn.nspname AS sequence_schema, coalesce(o.relname, s.relname) AS sequence, o.attname
  FROM called AS u
  JOIN pg_catalog.pg_class AS c ON c.oid = u.relid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class AS s ON s.oid = u.sequence
  JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.relnamespace
  LEFT JOIN LATERAL (
{sequence_owner}
       ) AS o ON true
 WHERE n.nspname = ANY (:schemas)
