-- The functions that run with the rights of their owner, and the roles among :roles that can call them.
SELECT f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       pg_catalog.pg_get_userbyid(f.proowner) AS owner,
       f.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype AS is_trigger,
       pg_catalog.pg_get_functiondef(f.oid) AS definition,
       coalesce((
         SELECT pg_catalog.array_agg(r.rolname::pg_catalog.text ORDER BY r.rolname)
           FROM pg_catalog.pg_roles AS r
          WHERE r.rolname = ANY (CAST(:roles AS pg_catalog.text[]))
            AND EXISTS (
              SELECT FROM pg_catalog.pg_proc AS x
               WHERE (x.oid = f.oid OR x.oid = ANY (b.aggregates))
                 AND pg_catalog.has_schema_privilege(r.oid, x.pronamespace, 'USAGE')
                 AND pg_catalog.has_function_privilege(r.oid, x.oid, 'EXECUTE'))), '{}') AS roles,
       ARRAY(SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
              WHERE pg_catalog.pg_has_role(r.oid, f.proowner, 'USAGE')) AS owners
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
 CROSS JOIN LATERAL (
   -- An aggregate calls its functions with the EXECUTE of its own owner.
   SELECT ARRAY(
     SELECT a.aggfnoid::pg_catalog.oid FROM pg_catalog.pg_aggregate AS a
      WHERE f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                      a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)) AS aggregates) AS b
 WHERE f.prosecdef AND f.prokind IN ('f', 'p', 'w')
   -- Postgres alone calls it, and only a superuser makes an event trigger.
   AND f.prorettype <> 'pg_catalog.event_trigger'::pg_catalog.regtype
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e')
 ORDER BY 1
