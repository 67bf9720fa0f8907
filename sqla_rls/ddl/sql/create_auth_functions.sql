-- The functions of schema auth: who is calling.
--
-- pg_session_jwt where the server offers it; else functions of the same names, types, volatility and
-- behaviour in claims mode, which read the claims that were verified and bound to the transaction as
-- request.jwt.claims.  What something else made under these names is never replaced.
--
-- One block, so that it happens whole or not at all, and runs the same way from a script.
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
    -- The extension is "trusted": made by an owner who is no superuser, its schema is the superuser's.
    IF NOT has_schema_privilege('auth', 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'RLS01',
        MESSAGE = format('schema auth of the extension pg_session_jwt belongs to a superuser, and %I may not'
                         ' use it. Nothing was done. A superuser must run, in this database: %s', current_user, hint);
    END IF;
    RETURN;
  END IF;

  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Signing is never taken away in passing: drop_signing.sql does.
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
         -- Ours has our comment, or a body of ours under another one.
         SELECT FROM pg_proc AS p
          WHERE p.oid = existing
            AND (obj_description(p.oid, 'pg_proc') = made_by
                 OR strpos(definition.body, '$function$' || p.prosrc || '$function$') > 0
                 OR EXISTS (SELECT FROM (
{signed_functions}
                   ) AS ours WHERE ours.name = p.proname
                               AND strpos(ours.body, '$function$' || p.prosrc || '$function$') > 0))) THEN
      RAISE WARNING '% was made by something else: left as it is', existing;
    ELSIF NOT has_schema_privilege('auth', 'CREATE') THEN
      RAISE WARNING 'schema auth belongs to something else: auth.%() is left out', definition.name;
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
