SELECT pg_catalog.jsonb_build_object(
  'backend_pid', pg_catalog.pg_backend_pid(),
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
  'jwk', pg_catalog.current_setting('pg_session_jwt.jwk', true),
  'reset', pg_catalog.jsonb_object_agg(name, reset_val),
  'session', pg_catalog.jsonb_object_agg(name, setting) FILTER (WHERE source OPERATOR(pg_catalog.=) 'session')
)::pg_catalog.text
  FROM pg_catalog.pg_settings
 WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[
   'search_path', 'default_transaction_isolation', 'default_transaction_read_only',
   'default_transaction_deferrable', 'application_name', 'client_encoding', 'DateStyle', 'TimeZone',
   'local_preload_libraries'])
