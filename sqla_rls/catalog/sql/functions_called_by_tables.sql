-- By column defaults, constraints and indexes; policies and views make room before a function goes.
{functions}
   AND (n.nspname, p.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
   AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = p.oid
                  AND d.classid IN ('pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_constraint'::regclass,
                                    'pg_catalog.pg_class'::regclass))
