-- Reverses create_auth_functions.sql and create_signed_auth_functions.sql: drops only objects that they made.  If a
-- default or a policy, of another project or tenant, still uses one of the functions, all of them stay, since they
-- call one another.
DO $sqla_rls$
DECLARE
  made_by  constant text := {made_by};
  path     constant text := current_setting('search_path');
  version  constant int  := current_setting('server_version_num');
  borrowed boolean := false;
  existing regprocedure;
  still    text;
BEGIN
  IF {keep_signed} AND to_regnamespace('sqla_rls_secret') IS NOT NULL THEN
    RAISE NOTICE 'the functions of schema auth and their key stay: they verify callers';
    RETURN;
  END IF;
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  BEGIN
    IF EXISTS (SELECT FROM pg_extension
               WHERE extname = 'pg_session_jwt' AND obj_description(oid, 'pg_extension') = made_by) THEN
      DROP EXTENSION pg_session_jwt;
    END IF;
    IF EXISTS (SELECT FROM pg_namespace
               WHERE nspname = 'sqla_rls_secret' AND nspowner = to_regrole('sqla_rls_keyholder')) THEN
{keyholder_borrowed}
    END IF;
    FOR existing IN
      SELECT made.oid::regprocedure FROM (
{made_auth_functions}
      ) AS made
    LOOP
      EXECUTE format('DROP FUNCTION %s', existing);
    END LOOP;
    IF obj_description(to_regnamespace('auth'), 'pg_namespace') = made_by
       AND NOT EXISTS (SELECT FROM pg_depend
                       WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('auth')
                         AND deptype = 'n') THEN
      DROP SCHEMA auth;
    END IF;
{secret_dropped}
  EXCEPTION WHEN dependent_objects_still_exist THEN
    GET STACKED DIAGNOSTICS still = PG_EXCEPTION_DETAIL;
    RAISE NOTICE 'the functions of schema auth stay: other objects use them (%)', still;
    PERFORM set_config('search_path', path, true);
  END;
END $sqla_rls$
