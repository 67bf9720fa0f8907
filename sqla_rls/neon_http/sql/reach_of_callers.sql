-- The rights by which SQL of one caller reaches another caller: through the login role, which RESET ROLE returns to,
-- through roles that it can become, or through objects that all callers use.  Rows with is_fatal are refused.
WITH login AS (
  SELECT oid, rolname AS name FROM pg_catalog.pg_roles WHERE rolname = session_user
), acting AS (
  -- SET ROLE reaches anonymous, too.
  SELECT DISTINCT r.rolname::text AS name FROM pg_catalog.pg_roles AS r
   WHERE r.rolname IN (session_user, current_user)
      OR r.rolname = 'anonymous' AND pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
)
SELECT login.name AS login, current_user::text AS role, found.is_fatal, found.what, found.hint
  FROM login, LATERAL (
    SELECT 1 AS rank, true AS is_fatal, format('login role %I can become role %I', login.name, r.rolname) AS what,
           format('REVOKE %I FROM %I', r.rolname, login.name) AS hint
      FROM pg_catalog.pg_roles AS r
     -- anonymous is a role of all callers.
     WHERE r.rolname NOT IN (login.name, current_user, 'anonymous')
       AND pg_catalog.pg_has_role(login.oid, r.oid, 'MEMBER')
       AND NOT pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER')
     UNION ALL
    SELECT 2, true, format('login role %I has privileges of its own on %s %s', login.name, i.type, i.identity),
           format('REVOKE ALL ON %s %s FROM %I', upper(i.type), i.identity, login.name)
      FROM pg_catalog.pg_shdepend AS d, pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
     WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = login.oid AND d.deptype = 'a'
       AND d.classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass)
       AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
       AND login.name <> current_user
     UNION ALL
    -- A function there may run as another caller.
    SELECT 3, true, format('role %I may create objects in schema %I', a.name, n.nspname),
           format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I', n.nspname, a.name)
      FROM acting AS a, pg_catalog.pg_namespace AS n
     WHERE n.nspname !~ '^pg_(temp|toast_temp)_' AND pg_catalog.has_schema_privilege(a.name, n.oid, 'CREATE')
     UNION ALL
    SELECT 3, true, format('role %I may create schemas', a.name),
           format('REVOKE CREATE ON DATABASE %I FROM PUBLIC, %I', current_database(), a.name)
      FROM acting AS a
     WHERE pg_catalog.has_database_privilege(a.name, current_database(), 'CREATE')
     UNION ALL
    SELECT 4, true, format('role %I may create triggers on table %s', a.name, c.oid::regclass),
           format('REVOKE TRIGGER ON %s FROM PUBLIC, %I', c.oid::regclass, a.name)
      FROM acting AS a, pg_catalog.pg_class AS c
     WHERE c.relkind IN ('r', 'p', 'v', 'f') AND c.relpersistence <> 't'
       AND pg_catalog.has_table_privilege(a.name, c.oid, 'TRIGGER')
     UNION ALL
    -- TRUNCATE asks no policy.
    SELECT 4, true, format('role %I may truncate table %s, past its policies', a.name, c.oid::regclass),
           format('REVOKE TRUNCATE ON %s FROM PUBLIC, %I', c.oid::regclass, a.name)
      FROM acting AS a, pg_catalog.pg_class AS c
     WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND c.relpersistence <> 't'
       AND pg_catalog.has_table_privilege(a.name, c.oid, 'TRUNCATE')
     UNION ALL
    -- A prepared transaction keeps its locks when its connection has ended.
    SELECT 5, true, 'a transaction may be prepared, and keep its locks', 'ALTER SYSTEM RESET max_prepared_transactions'
     WHERE pg_catalog.current_setting('max_prepared_transactions') <> '0'
     UNION ALL
    -- From PostgreSQL 16 on, DROP OWNED takes the caller's role out of a policy.  The statement that reads the rows
    -- may be in the same block, and return them in an error.
    SELECT 6, true, format('role %I can drop restrictive policy %I of table %s by DROP OWNED, and permissive policy %I stays',
                           acting.name, r.polname, c.oid::regclass, p.polname),
           format('ALTER POLICY %I ON %s TO PUBLIC', r.polname, c.oid::regclass)
      FROM acting CROSS JOIN pg_catalog.pg_policy AS r
      JOIN pg_catalog.pg_class AS c ON c.oid = r.polrelid
      JOIN pg_catalog.pg_policy AS p ON p.polrelid = r.polrelid AND p.polpermissive
     WHERE NOT r.polpermissive AND 0 <> ALL (r.polroles) AND c.relrowsecurity AND c.relpersistence <> 't'
       AND (p.polcmd IN (r.polcmd, '*') OR r.polcmd = '*')
       AND EXISTS (SELECT FROM unnest(r.polroles) AS a (role) WHERE pg_catalog.pg_has_role(acting.name, a.role, 'USAGE'))
       AND EXISTS (SELECT FROM unnest(p.polroles) AS b (role)
                    WHERE b.role = 0 OR b.role <> ALL (r.polroles) AND pg_catalog.pg_has_role(acting.name, b.role, 'USAGE'))
       AND (pg_catalog.has_any_column_privilege(acting.name, c.oid, 'SELECT, INSERT, UPDATE')
            OR pg_catalog.has_table_privilege(acting.name, c.oid, 'DELETE'))
       AND pg_catalog.current_setting('server_version_num')::int >= 160000
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger
                        WHERE evtevent = 'ddl_command_start' AND evtenabled IN ('O', 'A') AND 'DROP OWNED' = ANY (evttags))
     UNION ALL
    SELECT 7, false, 'end the sessions of others', format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure)
      FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN ('pg_cancel_backend', 'pg_terminate_backend')
       AND pg_catalog.has_function_privilege(login.name, p.oid, 'EXECUTE')
     UNION ALL
    SELECT 8, false, 'read the statements of others', format('ALTER ROLE %I SET track_activities = off', login.name)
     WHERE pg_catalog.current_setting('track_activities') = 'on'
     UNION ALL
    -- It shows the texts of a role's statements to the role.  Those of commands such as DO have their literals.
    SELECT 8, false, 'read the statements of others',
           format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO pg_read_all_stats',
                  p.oid::regprocedure)
      FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
      JOIN pg_catalog.pg_extension AS e ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
     WHERE e.extname = 'pg_stat_statements' AND p.proname = 'pg_stat_statements'
       AND (pg_catalog.has_function_privilege(login.name, p.oid, 'EXECUTE')
            OR pg_catalog.has_function_privilege(current_user, p.oid, 'EXECUTE'))
     UNION ALL
    SELECT 9, false, 'share large objects', format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure)
      FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace
       AND p.proname IN ('lo_create', 'lo_creat', 'lo_from_bytea', 'lo_open', 'lo_get', 'lo_put', 'lo_unlink')
       AND (pg_catalog.has_function_privilege(login.name, p.oid, 'EXECUTE')
            OR pg_catalog.has_function_privilege(current_user, p.oid, 'EXECUTE'))
  ) AS found
 ORDER BY found.rank, found.what, found.hint
