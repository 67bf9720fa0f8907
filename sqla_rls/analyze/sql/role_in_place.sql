-- Whether this role can evaluate policies as another one, and whether that one may do what their text needs: a policy
-- itself needs no privilege on schemas.  A role that doesn't exist yet has the privileges of PUBLIC.
SELECT coalesce((
         SELECT pg_catalog.pg_has_role(r.oid, CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000
                                                   THEN 'SET' ELSE 'MEMBER' END)
           FROM pg_catalog.pg_roles AS r WHERE r.rolname = :role), false) AS may_set_role,
       coalesce((
         SELECT bool_and(pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'))
           FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.rolname = :role
          WHERE n.nspname = ANY (CAST(:schemas AS pg_catalog.text[]))), true) AS may_use_schemas,
       coalesce((
         SELECT bool_and(pg_catalog.has_function_privilege(
                  coalesce((SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolname = :role), 'public'),
                  f.signature, 'EXECUTE'))
           FROM unnest(CAST(:signatures AS pg_catalog.text[])) AS f (signature)), true) AS may_execute
