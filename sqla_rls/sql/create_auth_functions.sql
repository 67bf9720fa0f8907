-- The functions of schema auth: who is calling.
--
-- pg_session_jwt where the server offers it; else functions of the same names, types, volatility and
-- behaviour in claims mode, which read the claims that were verified and bound to the transaction as
-- request.jwt.claims.  What something else made under these names is never replaced.
--
-- One block, so that it happens whole or not at all, and runs the same way from a script.
DO $sqla_rls$
DECLARE
  made_by  constant text := 'made by sqla_rls';
  path     constant text := current_setting('search_path');
  -- Standard SQL bodies (RETURN) are resolved here and now: no caller's search_path changes their meaning.
  setting  constant text := $$current_setting('request.jwt.claims', true)$$;
  claims   text := format('nullif(%s, '''')::jsonb', setting);
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
    -- The type is named when it runs: with its schema, or a caller's pg_temp.jsonb would be asked.
    claims := format($$CASE WHEN pg_input_is_valid(%1$s, 'pg_catalog.jsonb') THEN %1$s::jsonb END$$, setting);
  END IF;

  FOR definition IN
    SELECT * FROM (VALUES
      ('session',         'jsonb', format($$coalesce(%s, 'null')$$, claims)),
      ('jwt',             'jsonb', format($$coalesce(%s, 'null')$$, claims)),
      ('user_id',         'text',  format($$CASE WHEN jsonb_typeof(%1$s -> 'sub') = 'string' THEN %1$s ->> 'sub' END$$, claims)),
      ('uid',             'uuid',  format($$CASE WHEN jsonb_typeof(%1$s -> 'sub') = 'string' AND %1$s ->> 'sub' ~ %2$L
                                            THEN replace(%1$s ->> 'sub', 'urn:uuid:', '')::uuid END$$, claims, is_uuid)),
      ('organization',    'jsonb', format($$CASE WHEN jsonb_typeof(%1$s -> 'o') = 'object' THEN %1$s -> 'o' END$$, claims)),
      ('organization_id', 'uuid',  format($$CASE WHEN jsonb_typeof(%1$s -> 'o' -> 'id') = 'string' AND %1$s -> 'o' ->> 'id' ~ %2$L
                                            THEN replace(%1$s -> 'o' ->> 'id', 'urn:uuid:', '')::uuid END$$, claims, is_uuid))
    ) AS t (name, returns, body)
  LOOP
    existing := to_regprocedure(format('auth.%I()', definition.name));
    IF existing IS NOT NULL AND obj_description(existing, 'pg_proc') IS DISTINCT FROM made_by THEN
      RAISE WARNING '% was made by something else: left as it is', existing;
    ELSIF NOT has_schema_privilege('auth', 'CREATE') THEN
      RAISE WARNING 'schema auth belongs to something else: auth.%() is left out', definition.name;
    ELSE
      EXECUTE format('CREATE OR REPLACE FUNCTION auth.%I() RETURNS %s LANGUAGE sql STABLE PARALLEL SAFE RETURN %s',
                     definition.name, definition.returns, definition.body);
      EXECUTE format('COMMENT ON FUNCTION auth.%I() IS %L', definition.name, made_by);
      EXECUTE format('GRANT EXECUTE ON FUNCTION auth.%I() TO PUBLIC', definition.name);
    END IF;
  END LOOP;
  PERFORM set_config('search_path', path, true);
END $sqla_rls$
