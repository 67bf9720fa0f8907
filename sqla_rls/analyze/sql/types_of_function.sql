(SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(m.nspname, t.typname))
   FROM unnest(coalesce(f.proallargtypes, f.proargtypes::pg_catalog.oid[]) || f.prorettype) AS u (oid)
   JOIN pg_catalog.pg_type AS t ON t.oid = u.oid
   JOIN pg_catalog.pg_namespace AS m ON m.oid = t.typnamespace)
