WITH view AS (
  SELECT c.oid, n.nspname, c.relname, c.reloptions
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE c.relkind = 'v' AND (n.nspname, c.relname) IN (SELECT * FROM unnest(:schemas, :views))
)
SELECT v.oid, v.nspname, v.relname, rtrim(pg_catalog.pg_get_viewdef(v.oid), ';') AS definition,
       coalesce(o.security_invoker::boolean, false) AS security_invoker,
       coalesce(o.security_barrier::boolean, false) AS security_barrier, o.check_option,
       pg_catalog.obj_description(v.oid, 'pg_class') AS comment,
       ARRAY(SELECT ARRAY[a.attname::text, d.description]
               FROM pg_catalog.pg_attribute AS a
               JOIN pg_catalog.pg_description AS d
                 ON d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = v.oid
              WHERE a.attrelid = v.oid AND d.objsubid = a.attnum ORDER BY a.attnum) AS column_comments,
       ARRAY(SELECT d.refobjid::bigint
               FROM pg_catalog.pg_rewrite AS r
               JOIN pg_catalog.pg_depend AS d
                 ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
              WHERE r.ev_class = v.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                AND d.refobjid <> v.oid) AS reads
  FROM view AS v,
       LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'security_invoker') AS security_invoker,
                       max(option_value) FILTER (WHERE option_name = 'security_barrier') AS security_barrier,
                       max(option_value) FILTER (WHERE option_name = 'check_option') AS check_option
                  FROM pg_catalog.pg_options_to_table(v.reloptions)) AS o
