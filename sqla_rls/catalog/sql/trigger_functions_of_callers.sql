-- The functions of triggers on relations of :schemas, and of event triggers, that run as their owners with the
-- search_path of the caller.
SELECT n.nspname, f.proname
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
 WHERE f.prosecdef
   AND NOT EXISTS (SELECT FROM unnest(f.proconfig) AS s (setting) WHERE s.setting LIKE 'search_path=%')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
   -- Only a superuser fires a trigger of replicas.
   AND (EXISTS (SELECT FROM pg_catalog.pg_event_trigger AS e WHERE e.evtfoid = f.oid AND e.evtenabled NOT IN ('D', 'R'))
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                     JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
                     JOIN pg_catalog.pg_namespace AS m ON m.oid = c.relnamespace AND m.nspname = ANY (:schemas)
                    WHERE t.tgfoid = f.oid AND t.tgenabled NOT IN ('D', 'R')))
 ORDER BY 1, 2
