(SELECT pg_catalog.jsonb_agg(pg_catalog.array_to_string(ARRAY[
          CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
          x.privilege_type], ' ') ORDER BY pg_catalog.pg_get_userbyid(x.grantee), x.privilege_type)
   FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS x)
