-- Makes a role a member of exactly the listed roles, with the options of its declaration.  Before PostgreSQL 16 a
-- membership has no option but ADMIN; since then it may have several grantors.
DO $sqla_rls$
DECLARE
  version  constant int     := pg_catalog.current_setting('server_version_num');
  wanted   constant text[]  := {groups};
  inherits constant boolean := {inherit};
  one       record;
  statement text;
  reason    text;
BEGIN
  FOR one IN
    SELECT g.rolname, m.grantor
      FROM (SELECT a.*, to_jsonb(a) AS options FROM pg_catalog.pg_auth_members AS a) AS m
      JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
      JOIN pg_catalog.pg_roles AS u ON u.oid = m.member AND u.rolname = {name}
     WHERE CASE WHEN g.rolname = ANY (wanted)
                THEN m.admin_option OR (m.options ->> 'inherit_option')::boolean <> inherits
                     OR NOT (m.options ->> 'set_option')::boolean
                ELSE NOT {keep_others} END
  LOOP
    statement := pg_catalog.concat(
      pg_catalog.format('REVOKE %I FROM %I', one.rolname, {name}),
      CASE WHEN version >= 160000
           THEN pg_catalog.format(' GRANTED BY %I', pg_catalog.pg_get_userbyid(one.grantor)) END);
    EXECUTE statement;
  END LOOP;
  FOR one IN
    SELECT w.rolname
      FROM unnest(wanted) AS w (rolname)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m
                         JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid AND g.rolname = w.rolname
                         JOIN pg_catalog.pg_roles AS u ON u.oid = m.member AND u.rolname = {name})
  LOOP
    statement := pg_catalog.concat(
      pg_catalog.format('GRANT %I TO %I', one.rolname, {name}),
      CASE WHEN version >= 160000 THEN ' WITH INHERIT ' || inherits END);
    EXECUTE statement;
  END LOOP;
EXCEPTION
  WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION USING ERRCODE = 'RLS04', MESSAGE = concat_ws(' ',
      format('memberships of role %s can''t be changed: %s.', {name}, SQLERRM), nullif(reason, ''),
      'Have a superuser run:', statement);
END $sqla_rls$
