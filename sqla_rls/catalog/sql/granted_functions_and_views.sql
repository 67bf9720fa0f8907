-- Without functions that PUBLIC may execute by default, and without objects of extensions.
SELECT 'function' AS kind, n.nspname, p.proname AS name
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY (:schemas) AND n.nspname <> 'auth' AND p.prokind = 'f'
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a
                WHERE a.grantee <> p.proowner AND pg_catalog.pg_get_userbyid(a.grantee) = ANY (:roles))
   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee = 0)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                    WHERE classid = 'pg_catalog.pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
UNION
SELECT 'view', n.nspname, c.relname
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (:schemas) AND c.relkind = 'v'
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a
                WHERE a.grantee <> c.relowner
                  AND (a.grantee = 0 OR pg_catalog.pg_get_userbyid(a.grantee) = ANY (:roles)))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                    WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid AND deptype = 'e')
 ORDER BY 1, 2, 3
