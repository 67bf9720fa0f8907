SELECT pg_catalog.jsonb_build_object(
  'backend_pid', pg_catalog.pg_backend_pid(),
  'version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'loaded', ({load}),
  'extension', EXISTS (SELECT FROM pg_catalog.pg_extension
                        WHERE extname OPERATOR(pg_catalog.=) 'pg_session_jwt'),
  'verifier', EXISTS (
    SELECT FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
      JOIN pg_catalog.pg_class AS k ON k.relowner OPERATOR(pg_catalog.=) p.proowner
      JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) k.relnamespace
     WHERE n.nspname OPERATOR(pg_catalog.=) 'auth' AND p.proname OPERATOR(pg_catalog.=) 'session'
       AND p.pronargs OPERATOR(pg_catalog.=) 0 AND p.prosecdef
       AND s.nspname OPERATOR(pg_catalog.=) 'sqla_rls_secret'
       AND k.relname OPERATOR(pg_catalog.=) 'signing_key'),
  -- Functions of another program, as on Supabase, prefer request.jwt.claim.sub to request.jwt.claims.
  'separate_claims', EXISTS (
    SELECT FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     WHERE n.nspname OPERATOR(pg_catalog.=) 'auth' AND p.pronargs OPERATOR(pg_catalog.=) 0
       AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY['uid', 'jwt', 'role', 'email'])
       AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') OPERATOR(pg_catalog.<>) 'made by sqla_rls'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                          AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')),
  'jwk', pg_catalog.current_setting('pg_session_jwt.jwk', true),
  'reset', pg_catalog.jsonb_object_agg(name, reset_val),
  'session', pg_catalog.jsonb_object_agg(name, setting) FILTER (WHERE source OPERATOR(pg_catalog.=) 'session')
)::pg_catalog.text
  FROM pg_catalog.pg_settings
 WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[
   'search_path', 'default_transaction_isolation', 'default_transaction_read_only',
   'default_transaction_deferrable', 'application_name', 'client_encoding', 'DateStyle', 'TimeZone',
   'local_preload_libraries'])
