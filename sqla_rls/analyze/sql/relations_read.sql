SELECT coalesce(pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, t.relname), ', '), 'no table') AS names
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class AS t ON t.oid = d.refobjid AND t.oid <> r.ev_class
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
 WHERE r.ev_class = CAST(:oid AS pg_catalog.oid)
