SELECT r.rolname AS name,
       r.rolsuper AS is_superuser,
       r.rolbypassrls AS bypasses_row_security,
       r.rolinherit AS inherits,
       r.rolcanlogin AS may_login,
       coalesce((
         -- Before PostgreSQL 16 a membership has no options of its own.
         SELECT pg_catalog.jsonb_object_agg(
                  pg_catalog.pg_get_userbyid(m.roleid),
                  coalesce(pg_catalog.to_jsonb(m) -> 'inherit_option', pg_catalog.to_jsonb(r.rolinherit)))
           FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid), '{}') AS member_of,
       coalesce((
         SELECT pg_catalog.jsonb_agg(s.setconfig ORDER BY s.setdatabase)
           FROM pg_catalog.pg_db_role_setting AS s WHERE s.setrole = r.oid), '[]') AS settings
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname !~ '^pg_'
 ORDER BY r.rolname
