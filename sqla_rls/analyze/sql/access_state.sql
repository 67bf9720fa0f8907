SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
       pg_catalog.jsonb_build_array(
         c.relkind, c.relrowsecurity, c.relforcerowsecurity, coalesce(c.reloptions, '{}'),
         (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                   p.polname, p.polpermissive, p.polcmd,
                   (SELECT pg_catalog.array_agg(r.oid ORDER BY r.oid) FROM unnest(p.polroles) AS r (oid)),
                   pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
                   pg_catalog.obj_description(p.oid, 'pg_policy')) ORDER BY p.polname)
            FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid),
         (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(x.grantor, x.grantee, x.privilege_type, x.is_grantable)
                                      ORDER BY x.grantee, x.privilege_type, x.grantor)
            FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS x),
         (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname, x.grantee, x.privilege_type, x.is_grantable)
                                      ORDER BY a.attnum, x.grantee, x.privilege_type)
            FROM pg_catalog.pg_attribute AS a, pg_catalog.aclexplode(a.attacl) AS x WHERE a.attrelid = c.oid)
       )::pg_catalog.text AS state
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND (CAST(:relation AS pg_catalog.text) IS NULL
        OR c.oid = pg_catalog.to_regclass(CAST(:relation AS pg_catalog.text)))
 ORDER BY 1
