-- Makes a role a member of another.  Before PostgreSQL 16 a membership has no option but ADMIN.
DO $sqla_rls$
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
    EXECUTE $sql$GRANT {role} TO {member} WITH {options}$sql$;
  ELSE
    GRANT {role} TO {member}{admin};
  END IF;
END $sqla_rls$
