-- The functions of schema auth, which return the caller.
--
-- pg_session_jwt if the server offers it; else functions of the same names, types, volatility and behaviour in
-- claims mode, which read the verified claims that are bound to the transaction as request.jwt.claims.  Functions
-- of these names that another program made are never replaced.
--
-- One block is atomic, and runs the same way from a script.
DO $sqla_rls$
DECLARE
  made_by  constant text := {made_by};
  path     constant text := current_setting('search_path');
  grant_it constant text := format('GRANT USAGE ON SCHEMA auth TO %I WITH GRANT OPTION', current_user);
  hint     text := grant_it;
  definition record;
  existing   regprocedure;
BEGIN
  IF to_regnamespace('auth') IS NULL
     AND EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'pg_session_jwt') THEN
    CREATE EXTENSION pg_session_jwt;
    EXECUTE format('COMMENT ON EXTENSION pg_session_jwt IS %L', made_by);
    hint := format('DO ''BEGIN CREATE EXTENSION IF NOT EXISTS pg_session_jwt; %s; END''', grant_it);
  END IF;

  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt') THEN
    -- The extension is "trusted": its schema is the superuser's, even if another owner creates it.
    IF NOT has_schema_privilege('auth', 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'RLS01',
        MESSAGE = format('the auth functions can''t be created: schema auth of the extension pg_session_jwt belongs'
                         ' to a superuser, and %I may not use it. Have a superuser run, in this database: %s',
                         current_user, hint);
    END IF;
    RETURN;
  END IF;

  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Only drop_signing.sql ends signing.
  IF EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname = 'sqla_rls_secret' AND c.relname = 'signing_key')
     OR EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                 WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0 AND p.prosecdef
                   AND strpos(p.prosrc, 'sqla_rls_secret.signing_key') > 0) THEN
    PERFORM set_config('search_path', path, true);
    RETURN;
  END IF;

  IF to_regnamespace('auth') IS NULL THEN
    CREATE SCHEMA auth;
    EXECUTE format('COMMENT ON SCHEMA auth IS %L', made_by);
  END IF;

  FOR definition IN
{auth_functions}
  LOOP
    existing := to_regprocedure(format('auth.%I()', definition.name));
    IF existing IS NOT NULL AND NOT EXISTS (
         -- A function of sqla_rls has the comment of sqla_rls, or one of its bodies under another comment.
         SELECT FROM pg_proc AS p
          WHERE p.oid = existing
            AND (obj_description(p.oid, 'pg_proc') = made_by
                 OR strpos(definition.body, '$function$' || p.prosrc || '$function$') > 0
                 OR EXISTS (SELECT FROM (
{signed_functions}
                   ) AS ours WHERE ours.name = p.proname
                               AND strpos(ours.body, '$function$' || p.prosrc || '$function$') > 0))) THEN
      RAISE WARNING 'function % stays as it is: another program created it', existing;
    ELSIF NOT has_schema_privilege('auth', 'CREATE') THEN
      RAISE WARNING 'function auth.%() isn''t created: role % may not create objects in schema auth',
        definition.name, current_user;
    ELSE
      EXECUTE format('CREATE OR REPLACE FUNCTION auth.%I() %s', definition.name, definition.body);
      IF obj_description(to_regprocedure(format('auth.%I()', definition.name)), 'pg_proc') IS NULL THEN
        EXECUTE format('COMMENT ON FUNCTION auth.%I() IS %L', definition.name, made_by);
      END IF;
      EXECUTE format('GRANT EXECUTE ON FUNCTION auth.%I() TO PUBLIC', definition.name);
    END IF;
  END LOOP;
  PERFORM set_config('search_path', path, true);
END $sqla_rls$
