-- The functions of schema auth: who is calling.
--
-- pg_session_jwt where the server offers it; else functions of the same names, types, volatility and
-- behaviour in claims mode, which read the claims that were verified and bound to the transaction as
-- request.jwt.claims.  What something else made under these names is never replaced.
--
-- One block, so that it happens whole or not at all, and runs the same way from a script.
DO $sqla_rls$
DECLARE
  -- PL/pgSQL, whose plan a session keeps: inlined into every statement, the same in SQL takes 40 µs more
  -- to plan.  It is read under a path of its own, at whose end a caller's temporary types do no harm.
  template constant text := $template$
    CREATE OR REPLACE FUNCTION auth.%I() RETURNS %s
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
    DECLARE
      setting constant text := current_setting('request.jwt.claims', true);
      claims jsonb := 'null';
    BEGIN
      IF setting <> '' AND %s THEN
        claims := setting;
      END IF;
      RETURN %s;
    END $function$
  $template$;
  made_by  constant text := 'made by sqla_rls';
  path     constant text := current_setting('search_path');
  is_json  text := 'true';
  hyphens  constant text := '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}';
  is_uuid  constant text := format('^(%s|urn:uuid:%s|[{]%s[}]|[0-9A-Fa-f]{32})$', hyphens, hyphens, hyphens);
  grant_it constant text := format('GRANT USAGE ON SCHEMA auth TO %I WITH GRANT OPTION', current_user);
  cure     text := grant_it;
  definition record;
  existing   regprocedure;
BEGIN
  IF to_regnamespace('auth') IS NULL
     AND EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'pg_session_jwt') THEN
    CREATE EXTENSION pg_session_jwt;
    EXECUTE format('COMMENT ON EXTENSION pg_session_jwt IS %L', made_by);
    cure := format('DO ''BEGIN CREATE EXTENSION IF NOT EXISTS pg_session_jwt; %s; END''', grant_it);
  END IF;

  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt') THEN
    -- The extension is "trusted": made by an owner who is no superuser, its schema is the superuser's.
    IF NOT has_schema_privilege('auth', 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'RLS01',
        MESSAGE = format('schema auth of the extension pg_session_jwt belongs to a superuser, and %I may not'
                         ' use it. Nothing was done. A superuser must run, in this database: %s', current_user, cure);
    END IF;
    RETURN;
  END IF;

  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  IF to_regnamespace('auth') IS NULL THEN
    CREATE SCHEMA auth;
    EXECUTE format('COMMENT ON SCHEMA auth IS %L', made_by);
  END IF;

  IF current_setting('server_version_num')::int >= 160000 THEN
    -- As the extension: what isn't JSON counts as no claims.  Before 16 it is an error, since only an
    -- exception block could tell, and those are not allowed in parallel queries.
    is_json := $$pg_input_is_valid(setting, 'jsonb')$$;
  END IF;

  FOR definition IN
    SELECT * FROM (VALUES
      ('session',         'jsonb', 'claims'),
      ('jwt',             'jsonb', 'claims'),
      ('user_id',         'text',  $$CASE WHEN jsonb_typeof(claims -> 'sub') = 'string' THEN claims ->> 'sub' END$$),
      ('uid',             'uuid',  format($$CASE WHEN jsonb_typeof(claims -> 'sub') = 'string' AND claims ->> 'sub' ~ %L
                                            THEN replace(claims ->> 'sub', 'urn:uuid:', '')::uuid END$$, is_uuid)),
      ('organization',    'jsonb', $$CASE WHEN jsonb_typeof(claims -> 'o') = 'object' THEN claims -> 'o' END$$),
      ('organization_id', 'uuid',  format($$CASE WHEN jsonb_typeof(claims -> 'o' -> 'id') = 'string' AND claims -> 'o' ->> 'id' ~ %L
                                            THEN replace(claims -> 'o' ->> 'id', 'urn:uuid:', '')::uuid END$$, is_uuid))
    ) AS t (name, returns, value)
  LOOP
    existing := to_regprocedure(format('auth.%I()', definition.name));
    IF existing IS NOT NULL AND obj_description(existing, 'pg_proc') IS DISTINCT FROM made_by THEN
      RAISE WARNING '% was made by something else: left as it is', existing;
    ELSIF NOT has_schema_privilege('auth', 'CREATE') THEN
      RAISE WARNING 'schema auth belongs to something else: auth.%() is left out', definition.name;
    ELSE
      EXECUTE format(template, definition.name, definition.returns, is_json, definition.value);
      EXECUTE format('COMMENT ON FUNCTION auth.%I() IS %L', definition.name, made_by);
      EXECUTE format('GRANT EXECUTE ON FUNCTION auth.%I() TO PUBLIC', definition.name);
    END IF;
  END LOOP;
  PERFORM set_config('search_path', path, true);
END $sqla_rls$
