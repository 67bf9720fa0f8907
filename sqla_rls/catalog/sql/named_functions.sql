{functions}
   AND (n.nspname, p.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
 ORDER BY p.oid
