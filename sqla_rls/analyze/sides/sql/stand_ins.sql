SELECT p.oid::pg_catalog.regprocedure::text,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname)
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid
  LEFT JOIN pg_catalog.pg_policy AS y ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND y.oid = d.objid
  LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
  JOIN pg_catalog.pg_class AS c ON c.oid = coalesce(y.polrelid, r.ev_class)
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE pg_catalog.obj_description(p.oid, 'pg_proc') = %s
 GROUP BY 1, 2 ORDER BY 1, 2
