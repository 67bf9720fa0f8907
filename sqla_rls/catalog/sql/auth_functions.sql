SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt') AS extension,
       ARRAY(SELECT p.proname::text FROM pg_catalog.pg_proc AS p
              WHERE p.pronamespace = pg_catalog.to_regnamespace('auth') AND p.pronargs = 0
                AND p.proname = ANY (:functions)) AS present,
       ARRAY(SELECT made.proname::text FROM (
{made_auth_functions}
         ) AS made WHERE made.proname = ANY (:functions)) AS managed,
       EXISTS (SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0 AND p.prosecdef
                  AND strpos(p.prosrc, 'sqla_rls_secret.signing_key') > 0) AS verifier,
       (SELECT pg_catalog.pg_get_userbyid(c.relowner)::text
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'sqla_rls_secret' AND c.relname = 'signing_key') AS keyholder,
       coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('auth')::oid, 'CREATE'), true)
         AS may_create
