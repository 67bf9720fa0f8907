-- Creates a role if it is missing.  Roles belong to the cluster: a migration of another database, even one that
-- runs at the same moment, may have created it.
DO $sqla_rls$
DECLARE
  reason text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN
    CREATE ROLE {role}{options};
    COMMENT ON ROLE {role} IS {made_by};
  END IF;
EXCEPTION
  WHEN duplicate_object OR unique_violation THEN
    NULL;
  WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION USING ERRCODE = 'RLS04', MESSAGE = concat_ws(' ',
      format('role %s can''t be created: %s.', {name}, SQLERRM), nullif(reason, ''),
      'Have a superuser run:', {statement});
END $sqla_rls$
