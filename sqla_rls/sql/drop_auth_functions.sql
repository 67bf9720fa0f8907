-- Undoes create_auth_functions.sql: drops what it made, and nothing that was there before.
-- What still uses the functions (a default, a policy) makes it fail, and keeps them.
DO $sqla_rls$
DECLARE
  made_by  constant text := 'made by sqla_rls';
  existing regprocedure;
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension
             WHERE extname = 'pg_session_jwt' AND pg_catalog.obj_description(oid, 'pg_extension') = made_by) THEN
    DROP EXTENSION pg_session_jwt;
  END IF;
  FOR existing IN
    SELECT p.oid::regprocedure
      FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.nspname = 'auth' AND pg_catalog.obj_description(p.oid, 'pg_proc') = made_by
  LOOP
    EXECUTE format('DROP FUNCTION %s', existing);
  END LOOP;
  IF pg_catalog.obj_description(to_regnamespace('auth'), 'pg_namespace') = made_by
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                     WHERE refclassid = 'pg_catalog.pg_namespace'::regclass AND refobjid = to_regnamespace('auth')
                       AND deptype = 'n') THEN
    DROP SCHEMA auth;
  END IF;
END $sqla_rls$
