SELECT f.oid::pg_catalog.int8 AS oid,
       f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       n.nspname AS schema,
       f.proname AS name,
       l.lanname AS language,
       CASE WHEN f.prosqlbody IS NULL THEN f.prosrc ELSE pg_catalog.pg_get_function_sqlbody(f.oid) END AS body,
       f.prosqlbody IS NOT NULL AS is_bound,
       f.prosecdef AS is_definer,
       pg_catalog.pg_get_userbyid(f.proowner) AS owner,
       pg_catalog.jsonb_build_array(
         f.prokind, f.prosecdef, f.provolatile, f.proisstrict, f.proleakproof, f.proconfig,
         pg_catalog.pg_get_function_result(f.oid), pg_catalog.pg_get_function_arguments(f.oid),
         -- A body that is text needs the privilege on the schemas that it names.
         {privileges_on_schema},
         (SELECT pg_catalog.jsonb_agg(pg_catalog.array_to_string(ARRAY[
                   CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
                   x.privilege_type], ' ') ORDER BY pg_catalog.pg_get_userbyid(x.grantee), x.privilege_type)
            FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) AS x),
         (SELECT pg_catalog.jsonb_build_array(
                   g.aggtransfn::pg_catalog.regprocedure::pg_catalog.text,
                   g.aggfinalfn::pg_catalog.regprocedure::pg_catalog.text,
                   g.aggtranstype::pg_catalog.regtype::pg_catalog.text, g.agginitval)
            FROM pg_catalog.pg_aggregate AS g WHERE g.aggfnoid = f.oid)
       )::pg_catalog.text AS properties,
       pg_catalog.format_type(f.prorettype, NULL) AS returns,
       {types_of_function} AS types
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = f.prolang
 WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e')
 ORDER BY 2
