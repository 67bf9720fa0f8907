-- Makes a role a member of another.  Before PostgreSQL 16 a membership has no option but ADMIN.  If the current role
-- may not grant the membership, an existing one is enough.
DO $sqla_rls$
DECLARE
  has_options constant boolean := pg_catalog.current_setting('server_version_num')::int >= 160000;
  wanted      constant jsonb := {wanted};
  reason      text;
BEGIN
  IF has_options THEN
    EXECUTE {statement};
  ELSE
    GRANT {role} TO {member}{admin};
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m
                   JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid AND r.rolname = {name}
                   JOIN pg_catalog.pg_roles AS u ON u.oid = m.member AND u.rolname = {member_name}
                  WHERE to_jsonb(m) @> CASE WHEN has_options THEN wanted
                                            ELSE wanted - 'inherit_option' - 'set_option' END) THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION USING ERRCODE = 'RLS04', MESSAGE = concat_ws(' ',
      format('role %s can''t be granted to %s: %s.', {name}, {member_name}, SQLERRM), nullif(reason, ''),
      'Have a superuser run:',
      CASE WHEN has_options THEN {statement} ELSE {older_statement} END);
  END IF;
END $sqla_rls$
