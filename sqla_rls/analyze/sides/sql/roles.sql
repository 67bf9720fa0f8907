-- The roles of the cluster, except the predefined ones and the superuser of a scratch server.  Before PostgreSQL 16
-- a member inherits as its attribute says, and may always SET ROLE.
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
       r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication,
       r.rolbypassrls AS bypassrls,
       ARRAY(SELECT pg_catalog.jsonb_build_object(
                      'role', g.rolname, 'admin', bool_or(m.admin_option),
                      'inherit', bool_or(coalesce((m.options ->> 'inherit_option')::boolean, r.rolinherit)),
                      'set', bool_or(coalesce((m.options ->> 'set_option')::boolean, true)))
               FROM (SELECT a.*, to_jsonb(a) AS options FROM pg_catalog.pg_auth_members AS a) AS m
               JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
              WHERE m.member = r.oid
              GROUP BY g.rolname ORDER BY g.rolname) AS member_of
  FROM pg_catalog.pg_roles AS r
 WHERE (r.oid = 10 OR r.oid >= 16384) AND NOT (r.oid = 10 AND r.rolname = :scratch)
 ORDER BY r.rolname
