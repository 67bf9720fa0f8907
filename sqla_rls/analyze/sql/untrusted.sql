-- The objects with code of roles that the connection's role has no reason to trust: a function of theirs, a check of
-- their domain or a policy of their table would run with its rights, and could even leave the caller's role again.
-- Trusted are superusers, the role itself, the owner of the database, roles that can become one of these, and roles that
-- nobody can become.  So are a role whose rights the connection's role inherits, unless a policy names it as that of
-- callers, and the platform's roles of Supabase.
WITH me AS (
  SELECT r.oid, r.rolsuper, d.datdba
    FROM pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d
   WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()
), untrusted AS (
  SELECT r.oid, r.rolname
    FROM pg_catalog.pg_roles AS r, me
   WHERE NOT r.rolsuper
     AND (r.rolcanlogin
          OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS s ON s.oid = m.member
                      WHERE m.roleid = r.oid AND NOT s.rolsuper))
     AND NOT pg_catalog.pg_has_role(r.oid, me.oid, 'MEMBER')
     AND NOT pg_catalog.pg_has_role(r.oid, me.datdba, 'MEMBER')
     AND NOT (NOT me.rolsuper AND pg_catalog.pg_has_role(me.oid, r.oid, 'USAGE')
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE r.oid = ANY (p.polroles)))
     AND NOT (r.rolname LIKE 'supabase\_%'
              AND EXISTS (SELECT FROM pg_catalog.pg_roles AS s WHERE s.rolname = 'supabase_admin' AND s.rolsuper))
)
SELECT 'relation' AS kind, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, u.rolname AS role
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN untrusted AS u ON u.oid = c.relowner
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION
-- A column of their type: they may change its checks and casts.
SELECT 'relation', pg_catalog.format('%I.%I', n.nspname, c.relname), u.rolname
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem
  JOIN untrusted AS u ON u.oid IN (t.typowner, e.typowner)
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION
SELECT 'function', f.oid::pg_catalog.regprocedure::pg_catalog.text, u.rolname
  FROM pg_catalog.pg_proc AS f
  JOIN untrusted AS u ON u.oid = f.proowner
UNION
SELECT 'type', pg_catalog.format_type(t.oid, NULL), u.rolname
  FROM pg_catalog.pg_type AS t
  JOIN untrusted AS u ON u.oid = t.typowner
 WHERE t.typtype = 'd'
UNION
-- They may make a function of theirs a part of it.
SELECT 'extension', x.extname, u.rolname
  FROM pg_catalog.pg_extension AS x
  JOIN untrusted AS u ON u.oid = x.extowner
 ORDER BY 1, 2, 3
