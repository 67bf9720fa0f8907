-- The privileges on schema auth that an extension's own script granted: pg_dump leaves them out.
SELECT pg_catalog.pg_get_userbyid(a.grantee)::text AS role, a.grantee = 0 AS is_public
  FROM pg_catalog.pg_init_privs AS i, pg_catalog.aclexplode(i.initprivs) AS a
 WHERE i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
   AND i.objoid = pg_catalog.to_regnamespace('auth') AND a.privilege_type = 'USAGE'
 ORDER BY 1
