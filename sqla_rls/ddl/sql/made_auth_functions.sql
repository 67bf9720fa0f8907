-- The functions of schema auth that create_auth_functions.sql or create_signed_auth_functions.sql made.  Their comment
-- says so, until somebody writes another: then the body does.
SELECT p.oid, p.proname
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = 'auth' AND p.pronargs = 0
   AND (pg_catalog.obj_description(p.oid, 'pg_proc') = {made_by}
        OR EXISTS (SELECT FROM (
{auth_functions}
          ) AS ours WHERE ours.name = p.proname AND strpos(ours.body, '$function$' || p.prosrc || '$function$') > 0)
        OR EXISTS (SELECT FROM (
{signed_functions}
          ) AS ours WHERE ours.name = p.proname AND strpos(ours.body, '$function$' || p.prosrc || '$function$') > 0))
