-- The functions with the rights of their owners.
SELECT f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       pg_catalog.pg_get_userbyid(f.proowner) AS owner,
       pg_catalog.format('%I.%I', n.nspname, f.proname) AS name,
       f.prokind = 'p' AS is_procedure,
       f.provariadic <> 0 AS is_variadic,
       f.pronargdefaults AS defaults,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                 pg_catalog.format_type(a.oid, NULL), p.typcategory, p.typname) ORDER BY a.place)
          FROM unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS a (oid, place)
          JOIN pg_catalog.pg_type AS p ON p.oid = a.oid) AS arguments,
       f.prosqlbody IS NOT NULL AS is_bound,
       f.proretset AS returns_set,
       t.typname AS returns,
       t.typtype::pg_catalog.text AS kind,
       (SELECT pg_catalog.substr(s.setting, pg_catalog.length('search_path=') + 1)
          FROM unnest(f.proconfig) AS s (setting)
         WHERE pg_catalog.starts_with(s.setting, 'search_path=')) AS search_path
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
  JOIN pg_catalog.pg_type AS t ON t.oid = f.prorettype
 WHERE f.prosecdef AND f.prokind IN ('f', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND t.typname NOT IN ('trigger', 'event_trigger')
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e')
 ORDER BY 1
