{policies}
 WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                 JOIN pg_catalog.pg_proc AS f ON f.oid = d.refobjid
                 JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.pronamespace
                WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_catalog.pg_proc'::regclass
                  AND (fn.nspname, f.proname) IN (SELECT * FROM unnest(:schemas, :functions)))
 ORDER BY n.nspname, c.relname, p.polname
