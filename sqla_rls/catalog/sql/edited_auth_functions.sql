WITH function AS (
  SELECT proname, proargtypes, pronamespace, pg_get_function_sqlbody(oid), prosrc, prolang, prorettype,
         proretset, provolatile, proparallel, prosecdef, proleakproof, proisstrict, proconfig
    FROM pg_catalog.pg_proc
   WHERE proname = ANY (:names)
), live AS (
  SELECT f.*
    FROM function AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE n.nspname IN ('auth', 'sqla_rls_secret')
)
SELECT expected.proname::text
  FROM function AS expected LEFT JOIN live USING (proname, proargtypes)
 WHERE expected.pronamespace = pg_my_temp_schema()
   AND to_jsonb(live) - 'pronamespace' IS DISTINCT FROM to_jsonb(expected) - 'pronamespace'
