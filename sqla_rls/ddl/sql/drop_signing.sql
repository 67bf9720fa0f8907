-- Drops the key, and the function that makes keys.  The functions of schema auth stay, and fail until
-- create_auth_functions.sql replaces them.
DO $sqla_rls$
DECLARE
  made_by  constant text := {made_by};
  path     constant text := current_setting('search_path');
  version  constant int  := current_setting('server_version_num');
  borrowed boolean := false;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  IF EXISTS (SELECT FROM pg_namespace
             WHERE nspname = 'sqla_rls_secret' AND nspowner = to_regrole('sqla_rls_keyholder')) THEN
{keyholder_borrowed}
  END IF;
  IF EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
             WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0 AND p.prosecdef
               AND strpos(p.prosrc, 'sqla_rls_secret.signing_key') > 0) THEN
    EXECUTE format('ALTER FUNCTION auth.session() OWNER TO %I', current_user);
    ALTER FUNCTION auth.session() SECURITY INVOKER;
  END IF;
{secret_dropped}
END $sqla_rls$
