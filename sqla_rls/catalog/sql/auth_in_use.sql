-- Postgres records no dependencies of a body that is text: there, the name of the schema counts.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_proc AS f ON f.oid = d.refobjid AND f.pronamespace = pg_catalog.to_regnamespace('auth')
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef AS a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_catalog.pg_class AS c ON c.oid IN (p.polrelid, a.adrelid, r.ev_class)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass
     AND (n.nspname, c.relname) IN (SELECT * FROM unnest(:schemas, :tables))
) OR EXISTS (
  SELECT FROM pg_catalog.pg_proc AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE (n.nspname, f.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
     AND strpos(lower(f.prosrc), 'auth') > 0
) AS in_use
