-- Creates a function or replaces it.  Only one that is new is marked.
DO $sqla_rls$
DECLARE
  is_new boolean := pg_catalog.to_regproc({name}) IS NULL;
BEGIN
  EXECUTE {statement};
  IF is_new THEN
    COMMENT ON FUNCTION {function} IS 'made by sqla_rls';
  END IF;
{if_possible}END $sqla_rls$
