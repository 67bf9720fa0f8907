-- Each role that may log in, with the roles that it is a member of, and how.
WITH RECURSIVE members AS (
  SELECT m.member, m.roleid,
         -- Before PostgreSQL 16 a membership has no options of its own.
         coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::pg_catalog.bool, r.rolinherit) AS inherits,
         coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::pg_catalog.bool, true) AS sets
    FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
), reached AS (
  SELECT r.oid AS login, r.oid AS role, true AS inherits, true AS sets FROM pg_catalog.pg_roles AS r WHERE r.rolcanlogin
   UNION
  SELECT d.login, m.roleid, d.inherits AND m.inherits, d.sets AND m.sets
    FROM reached AS d JOIN members AS m ON m.member = d.role
   WHERE d.inherits AND m.inherits OR d.sets AND m.sets
)
SELECT l.rolname AS login, r.rolname AS role, bool_or(d.inherits) AS inherits, bool_or(d.sets) AS sets,
       r.rolsuper AS is_superuser, r.rolbypassrls AS bypasses, r.rolcreaterole AS creates_roles,
       r.oid = 10 AS is_bootstrap
  FROM reached AS d
  JOIN pg_catalog.pg_roles AS l ON l.oid = d.login
  JOIN pg_catalog.pg_roles AS r ON r.oid = d.role
 GROUP BY l.rolname, r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.oid
 ORDER BY 1, 2
