-- Ends a membership, whoever granted it: since PostgreSQL 16 several may have.
DO $sqla_rls$
DECLARE
  granted_by text;
BEGIN
  FOR granted_by IN
    SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000
                THEN pg_catalog.format(' GRANTED BY %I', pg_catalog.pg_get_userbyid(m.grantor)) END
      FROM pg_catalog.pg_auth_members AS m
      JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid AND r.rolname = {name}
      JOIN pg_catalog.pg_roles AS u ON u.oid = m.member AND u.rolname = {member_name}
  LOOP
    EXECUTE pg_catalog.concat(pg_catalog.format('REVOKE %I FROM %I', {name}, {member_name}), granted_by);
  END LOOP;
END $sqla_rls$
