WITH functions AS (
  -- One scan, since Postgres plans this on each new connection.
  SELECT
    -- Loads the library of pg_session_jwt.  If a function's body loads it first, the function doesn't find claims
    -- that were set before (0.5.0, PostgreSQL 15).  A role that may call a function may call its validator, too.
    -- 13 is the language C in every database.
    pg_catalog.count(
      CASE WHEN p.proname OPERATOR(pg_catalog.=) 'user_id' AND p.prolang OPERATOR(pg_catalog.=) 13
            AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
           THEN pg_catalog.fmgr_c_validator(p.oid) END) AS loaded,
    -- The verifier function and the key have the same owner: no caller can create both.
    pg_catalog.bool_or(
      p.proname OPERATOR(pg_catalog.=) 'session' AND p.pronargs OPERATOR(pg_catalog.=) 0 AND p.prosecdef
      AND p.proowner OPERATOR(pg_catalog.=) (
        SELECT k.relowner FROM pg_catalog.pg_class AS k
         WHERE k.relname OPERATOR(pg_catalog.=) 'signing_key' AND k.relnamespace
               OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace('sqla_rls_secret')::pg_catalog.oid)) AS verifier,
    -- Functions of another program, as on Supabase, prefer request.jwt.claim.sub to request.jwt.claims.
    pg_catalog.bool_or(
      CASE WHEN p.proname OPERATOR(pg_catalog.=) ANY (ARRAY['uid', 'jwt', 'role', 'email'])
            AND p.pronargs OPERATOR(pg_catalog.=) 0
           THEN coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '')
                OPERATOR(pg_catalog.<>) 'made by sqla_rls'
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                             WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                               AND d.objid OPERATOR(pg_catalog.=) p.oid
                               AND d.deptype OPERATOR(pg_catalog.=) 'e') END) AS separate_claims
    FROM pg_catalog.pg_proc AS p
   WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace('auth')::pg_catalog.oid
     AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY['user_id', 'session', 'uid', 'jwt', 'role', 'email'])
), settings AS (
  SELECT pg_catalog.jsonb_object_agg(name, reset_val) AS reset,
         pg_catalog.jsonb_object_agg(name, setting)
           FILTER (WHERE source OPERATOR(pg_catalog.=) 'session') AS session
    FROM pg_catalog.pg_settings
   WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[
     'search_path', 'default_transaction_isolation', 'default_transaction_read_only',
     'default_transaction_deferrable', 'application_name', 'client_encoding', 'DateStyle', 'TimeZone',
     'local_preload_libraries'])
)
SELECT pg_catalog.jsonb_build_object(
  'backend_pid', pg_catalog.pg_backend_pid(),
  'version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'extension', EXISTS (SELECT FROM pg_catalog.pg_extension
                        WHERE extname OPERATOR(pg_catalog.=) 'pg_session_jwt'),
  'loaded', f.loaded,
  'verifier', coalesce(f.verifier, false),
  'separate_claims', coalesce(f.separate_claims, false),
  'jwk', pg_catalog.current_setting('pg_session_jwt.jwk', true),
  'has_empty_claims', coalesce(
    pg_catalog.current_setting('request.jwt.claims', true) OPERATOR(pg_catalog.=) '', false),
  'reset', s.reset,
  'session', s.session
)::pg_catalog.text
  FROM functions AS f, settings AS s
