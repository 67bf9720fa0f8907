-- The functions of these names, in any schema: an unqualified name in a body may mean each of them.
SELECT n.nspname AS schema,
       f.proname AS name,
       f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       l.lanname AS language,
       coalesce(pg_catalog.pg_get_function_sqlbody(f.oid), f.prosrc) AS body,
       f.provolatile = 'v' AS is_volatile,
       f.provolatile = 'i' AS is_immutable,
       f.prosecdef AS is_definer,
       {types_of_function} AS types,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid
                  AND d.deptype = 'e') AS is_of_extension
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = f.prolang
 WHERE f.proname = ANY (CAST(:names AS pg_catalog.text[]))
 ORDER BY 1, 2, 3
