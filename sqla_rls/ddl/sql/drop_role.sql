-- Drops a role that create_role.sql made, unless the cluster still uses it: by an object or a privilege in any
-- database, or by a member other than the current role.
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
  RAISE NOTICE 'role % stays: the cluster still uses it, or the current role may not drop it', {name};
END $sqla_rls$
