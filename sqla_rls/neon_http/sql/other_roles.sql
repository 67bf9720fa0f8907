-- The first right that SQL of the caller gains by RESET ROLE or SET ROLE; no row without one.  anonymous is a role
-- of everybody.
WITH login AS (
  SELECT oid, rolname AS name FROM pg_catalog.pg_roles WHERE rolname = session_user
)
SELECT login.name AS login, current_user::text AS role, found.what, found.hint
  FROM login, LATERAL (
    SELECT 1 AS rank, format('can become role %I', r.rolname) AS what,
           format('REVOKE %I FROM %I', r.rolname, login.name) AS hint
      FROM pg_catalog.pg_roles AS r
     WHERE r.rolname NOT IN (login.name, current_user, 'anonymous') AND pg_catalog.pg_has_role(login.oid, r.oid, 'MEMBER')
       AND NOT pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER')
     UNION ALL
    SELECT 2, format('has privileges of its own on %s %s', i.type, i.identity),
           format('REVOKE ALL ON %s %s FROM %I', upper(i.type), i.identity, login.name)
      FROM pg_catalog.pg_shdepend AS d, pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
     WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = login.oid AND d.deptype = 'a'
       AND d.classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass)
       AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
       AND login.name <> current_user
  ) AS found
 ORDER BY found.rank, found.what
 LIMIT 1
