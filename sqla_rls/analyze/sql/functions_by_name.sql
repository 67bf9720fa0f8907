-- The functions of these names, in any schema: an unqualified name in a body may mean each of them.
SELECT n.nspname AS schema,
       p.proname AS name,
       p.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       l.lanname AS language,
       coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) AS body,
       p.provolatile = 'v' AS is_volatile,
       p.provolatile = 'i' AS is_immutable,
       p.prosecdef AS is_definer,
       (SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(m.nspname, t.typname))
          FROM unnest(coalesce(p.proallargtypes, p.proargtypes::pg_catalog.oid[]) || p.prorettype) AS u (oid)
          JOIN pg_catalog.pg_type AS t ON t.oid = u.oid
          JOIN pg_catalog.pg_namespace AS m ON m.oid = t.typnamespace) AS types,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                  AND d.deptype = 'e') AS is_of_extension
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
 WHERE p.proname = ANY (CAST(:names AS pg_catalog.text[]))
 ORDER BY 1, 2, 3
