-- Alters a role where it is something else: who may not alter it may be content with what it is.
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
      SQLERRM || '.', nullif(reason, ''), 'Have a superuser run:', {statement});
END $sqla_rls$
