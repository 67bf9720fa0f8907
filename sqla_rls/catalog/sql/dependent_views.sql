-- A view also depends on the objects that its views read.
{dropped_columns}, read (view, classid, objid, attnum) AS (
  SELECT r.ev_class, d.refclassid, d.refobjid, d.refobjsubid
    FROM pg_catalog.pg_rewrite AS r
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
   WHERE d.refobjid <> r.ev_class AND r.ev_class >= 16384
), dependent (view) AS (
  SELECT r.view
    FROM read AS r JOIN dropped_column AS t ON r.classid = 'pg_catalog.pg_class'::regclass AND r.objid = t.relid
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.relid AND a.attname = t.attname
   WHERE t.attname IS NULL OR r.attnum = a.attnum
   UNION
  SELECT r.view
    FROM read AS r
    JOIN pg_catalog.pg_proc AS f ON r.classid = 'pg_catalog.pg_proc'::regclass AND r.objid = f.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE (n.nspname, f.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
   UNION
  SELECT r.view
    FROM dependent AS d JOIN read AS r ON r.classid = 'pg_catalog.pg_class'::regclass AND r.objid = d.view
)
SELECT n.nspname, c.relname
  FROM dependent AS d
  JOIN pg_catalog.pg_class AS c ON c.oid = d.view
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
