-- Drops a role that create_role.sql made, unless anything in the cluster still needs it: an object or
-- a privilege in any database, or a member other than whoever drops it.
DO $sqla_rls$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles AS r
             WHERE r.rolname = {name}
               AND pg_catalog.shobj_description(r.oid, 'pg_authid') = {made_by}
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS u ON u.oid = m.member
                               WHERE m.roleid = r.oid AND u.rolname <> current_user)) THEN
    DROP ROLE {role};
  END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
  RAISE NOTICE 'role % is used elsewhere in the cluster, or not ours to drop: left as it is', {name};
END $sqla_rls$
