-- The database itself, which pg_dump writes with --create only, and the owner of most tables.
SELECT pg_catalog.pg_get_userbyid(d.datdba)::text AS owner,
       pg_catalog.current_setting('server_version_num')::int / 10000 AS version,
       ARRAY(SELECT pg_catalog.jsonb_build_object(
                      'privilege', a.privilege_type,
                      'role', CASE a.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
                      'grantable', a.is_grantable)
               FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
              WHERE a.grantee <> d.datdba
              ORDER BY a.grantee <> 0, pg_catalog.pg_get_userbyid(a.grantee), a.privilege_type) AS privileges,
       (SELECT pg_catalog.pg_get_userbyid(c.relowner)::text FROM pg_catalog.pg_class AS c
         WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e'
                              AND e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
         GROUP BY c.relowner ORDER BY count(*) DESC, 1 LIMIT 1) AS owner_of_tables,
       EXISTS (SELECT FROM pg_catalog.pg_foreign_server) AS has_foreign_servers
  FROM pg_catalog.pg_database AS d
 WHERE d.datname = pg_catalog.current_database()
