SELECT r.rolname AS name,
       r.rolsuper AS is_superuser,
       r.rolbypassrls AS bypasses_row_security,
       r.rolinherit AS inherits,
       r.rolcanlogin AS may_login,
       coalesce((
         -- Before PostgreSQL 16 a membership has no options of its own.
         SELECT pg_catalog.jsonb_object_agg(pg_catalog.pg_get_userbyid(g.roleid), g.is_inherited)
           FROM (SELECT m.roleid, pg_catalog.bool_or(coalesce(
                          (pg_catalog.to_jsonb(m) ->> 'inherit_option')::pg_catalog.bool, r.rolinherit)) AS is_inherited
                   FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid
                  GROUP BY m.roleid) AS g), '{}') AS member_of,
       ARRAY(SELECT DISTINCT pg_catalog.pg_get_userbyid(m.roleid)::pg_catalog.text
               FROM pg_catalog.pg_auth_members AS m
              WHERE m.member = r.oid
                    AND coalesce(pg_catalog.to_jsonb(m) ->> 'set_option', 'true') = 'true'
              ORDER BY 1) AS may_set,
       ARRAY(SELECT DISTINCT pg_catalog.pg_get_userbyid(m.roleid)::pg_catalog.text
               FROM pg_catalog.pg_auth_members AS m
              WHERE m.member = r.oid AND m.admin_option
              ORDER BY 1) AS may_grant,
       coalesce((
         SELECT pg_catalog.jsonb_agg(s.setconfig ORDER BY s.setdatabase)
           FROM pg_catalog.pg_db_role_setting AS s WHERE s.setrole = r.oid), '[]') AS settings,
       -- The name stands for all roles: such a role may have no more than these.
       r.rolname = 'PUBLIC' AND (
         r.rolsuper OR r.rolbypassrls
         OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid)
         OR EXISTS (
           SELECT FROM pg_catalog.pg_shdepend AS d
            WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid
              AND d.dbid IN (0, (SELECT b.oid FROM pg_catalog.pg_database AS b
                                  WHERE b.datname = pg_catalog.current_database())))) AS is_misnamed
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname !~ '^pg_'
 ORDER BY r.rolname
