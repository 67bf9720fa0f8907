-- The first reason why row security doesn't hold for the login role, or for the role that it acts as; no row
-- without a reason.  The parameter is a JSON list: the declared groups of the caller's role.  A membership without
-- INHERIT counts, too, since SQL of a caller can SET ROLE.
WITH RECURSIVE acting AS (
  SELECT current_user::text AS name, true AS is_caller
   UNION
  SELECT session_user::text, session_user = current_user
), reachable AS (
  SELECT a.name, a.is_caller, r.*, r.rolname = a.name AS is_itself
    FROM acting AS a JOIN pg_catalog.pg_roles AS r ON pg_catalog.pg_has_role(a.name, r.oid, 'MEMBER')
), roles AS (
  SELECT DISTINCT oid, rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication FROM reachable
), in_policies AS (
  SELECT DISTINCT role AS oid
    FROM (SELECT DISTINCT polroles FROM pg_catalog.pg_policy) AS p, unnest(polroles) AS role
   WHERE role <> 0
), {used_objects}, owned AS (
  SELECT relowner AS oid, 'pg_catalog.pg_class'::regclass AS class, c.oid AS object, 1 AS rank,
         'and can switch its row security off' AS why
    FROM pg_catalog.pg_class AS c
   WHERE relrowsecurity
   UNION ALL
  SELECT c.relowner, 'pg_catalog.pg_class'::regclass, c.oid, 2, 'a partition of a protected one'
    FROM pg_catalog.pg_class AS c, pg_catalog.pg_partition_ancestors(c.oid) AS p (parent)
    JOIN pg_catalog.pg_class AS above ON above.oid = p.parent
   WHERE c.relispartition AND above.relrowsecurity
   UNION ALL
  SELECT p.proowner, 'pg_catalog.pg_proc'::regclass, p.oid, 3, 'which returns the caller'
    FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('auth')
   UNION ALL
  -- Also by an owner of the database, who is a member of pg_database_owner.
  SELECT n.nspowner, 'pg_catalog.pg_namespace'::regclass, n.oid, 4, 'and can drop and replace its objects'
    FROM pg_catalog.pg_namespace AS n
   WHERE n.nspname = 'auth'
      OR n.oid IN (SELECT c.relnamespace FROM pg_catalog.pg_class AS c WHERE c.relrowsecurity)
   UNION ALL
  SELECT owner, class, object, rank, why FROM used
), reasons AS (
  SELECT r.oid, 1 AS kind, p.rank, p.what, format('ALTER ROLE %I %s', r.rolname, p.attribute) AS hint
    FROM roles AS r, LATERAL (VALUES
      (r.rolsuper, 1, 'is a superuser', 'NOSUPERUSER'),
      (r.rolbypassrls, 2, 'has BYPASSRLS', 'NOBYPASSRLS'),
      -- From PostgreSQL 16 on it takes ADMIN OPTION to grant a role, which is a membership, too.
      (r.rolcreaterole AND pg_catalog.current_setting('server_version_num')::int < 160000, 3,
       'has CREATEROLE, and can grant itself any role', 'NOCREATEROLE'),
      (r.rolreplication, 4, 'has REPLICATION, and can read every change', 'NOREPLICATION')
    ) AS p (holds, rank, what, attribute)
   WHERE p.holds
   UNION ALL
  SELECT r.oid, 1, 5, p.what, NULL
    FROM roles AS r JOIN (VALUES
{predefined_roles}
    ) AS p (name, what) ON p.name = r.rolname
   UNION ALL
  SELECT o.oid, 1, 5 + o.rank, format('owns %s %s, %s', i.type, i.identity, o.why),
         CASE i.type WHEN 'extension' THEN format('REASSIGN OWNED BY %I TO CURRENT_USER', r.rolname)
              ELSE format('ALTER %s %s OWNER TO CURRENT_USER',
                          replace(upper(i.type), '-', ' '), i.identity) END
    FROM owned AS o JOIN roles AS r USING (oid), pg_catalog.pg_identify_object(o.class, o.object, 0) AS i
)
SELECT f.name, f.rolname AS through, f.is_itself, f.name = session_user AS is_login, f.oid = 10 AS is_bootstrap,
       f.kind = 2 AS is_shared, f.what,
       CASE WHEN f.rolname = 'pg_database_owner'
            THEN format('ALTER DATABASE %I OWNER TO CURRENT_USER', current_database())
            WHEN f.oid = 10
            THEN format('CREATE ROLE app LOGIN NOINHERIT; GRANT %I TO app',
                        CASE WHEN current_user = session_user THEN 'authenticated' ELSE current_user END)
            WHEN f.hint IS NOT NULL AND (f.is_itself OR f.oid IN (SELECT oid FROM in_policies)) THEN f.hint
            ELSE format('REVOKE %I FROM %I', f.rolname, m.member)
                 || CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 AND m.grantor <> 10
                         THEN format(' GRANTED BY %I', pg_catalog.pg_get_userbyid(m.grantor)) ELSE '' END
       END AS hint
  FROM (SELECT r.*, reasons.kind, reasons.rank, reasons.what, reasons.hint
          FROM reachable AS r JOIN reasons USING (oid)
         UNION ALL
        SELECT r.*, 2, 0, NULL, NULL
          FROM reachable AS r JOIN in_policies USING (oid)
         WHERE r.is_caller AND NOT r.is_itself
           AND NOT pg_catalog.jsonb_exists(CAST(:member_of AS jsonb), r.rolname)
           -- A role of some callers may have the policies of all, and that of signed-in callers those of the others.
           AND r.rolname <> 'anonymous' AND (r.rolname <> 'authenticated' OR r.name = 'anonymous')
       ) AS f
  LEFT JOIN LATERAL (
    SELECT pg_catalog.pg_get_userbyid(a.member) AS member, a.grantor
      FROM pg_catalog.pg_auth_members AS a
     WHERE a.roleid = f.oid AND pg_catalog.pg_has_role(f.name, a.member, 'MEMBER')
     ORDER BY pg_catalog.pg_get_userbyid(a.member) <> f.name, a.member
     LIMIT 1
  ) AS m ON true
 ORDER BY f.kind, NOT f.is_itself, NOT f.is_caller, f.rank, f.what
 LIMIT 1
