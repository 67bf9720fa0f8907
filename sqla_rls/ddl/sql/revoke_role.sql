-- Ends a membership, by the name of each grantor: since PostgreSQL 16 it may have several.
DO $sqla_rls$
DECLARE
  statement text;
  reason    text;
BEGIN
  FOR statement IN
    SELECT pg_catalog.concat(pg_catalog.format('REVOKE %I FROM %I', r.rolname, u.rolname),
                             CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000
                                  THEN pg_catalog.format(' GRANTED BY %I', pg_catalog.pg_get_userbyid(m.grantor)) END)
      FROM pg_catalog.pg_auth_members AS m
      JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid AND r.rolname = {name}
      JOIN pg_catalog.pg_roles AS u ON u.oid = m.member AND u.rolname = {member_name}
  LOOP
    EXECUTE statement;
  END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
  GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
  RAISE EXCEPTION USING ERRCODE = 'RLS04', MESSAGE = concat_ws(' ',
    format('role %s can''t be revoked from %s: %s.', {name}, {member_name}, SQLERRM), nullif(reason, ''),
    'Have a superuser run:', statement);
END $sqla_rls$
