-- Alters a role only if it differs: a role that may not alter it needs no privilege then.
DO $sqla_rls$
DECLARE
  reason text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name} AND NOT ({other})) THEN
    ALTER ROLE {role} {options};
  END IF;
EXCEPTION
  WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION USING ERRCODE = 'RLS04', MESSAGE = concat_ws(' ',
      format('role %s can''t be altered: %s.', {name}, SQLERRM), nullif(reason, ''),
      'Have a superuser run:', {statement});
END $sqla_rls$
