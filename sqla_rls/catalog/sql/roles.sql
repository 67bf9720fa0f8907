-- Before PostgreSQL 16 a membership has no option but ADMIN; since then several roles may have granted it.
SELECT r.rolname, r.rolcanlogin, r.rolinherit, r.rolbypassrls, g.rolname AS member_of,
       bool_or(m.admin_option) AS admin, bool_or((m.options ->> 'inherit_option')::boolean) AS inherit,
       bool_or((m.options ->> 'set_option')::boolean) AS set_
  FROM pg_catalog.pg_roles AS r
  LEFT JOIN (SELECT a.*, to_jsonb(a) AS options FROM pg_catalog.pg_auth_members AS a) AS m ON m.member = r.oid
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
 GROUP BY r.rolname, r.rolcanlogin, r.rolinherit, r.rolbypassrls, g.rolname
