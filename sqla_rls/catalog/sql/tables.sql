-- With refclassid, an index finds the members of extensions; without it, Postgres reads all of pg_depend.
SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relkind::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
                  AND d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid)
         AS is_of_extension
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = ANY (:schemas)
