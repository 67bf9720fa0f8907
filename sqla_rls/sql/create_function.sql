-- Creates a function or replaces it.  Only one that is new is marked.
DO $sqla_rls$
DECLARE
  is_new   boolean := pg_catalog.to_regproc({name}) IS NULL;
  checking constant text := pg_catalog.current_setting('check_function_bodies');
BEGIN
  PERFORM pg_catalog.set_config('check_function_bodies', '{check_body}', true);
  EXECUTE {statement};
  PERFORM pg_catalog.set_config('check_function_bodies', checking, true);
  IF is_new THEN
    COMMENT ON FUNCTION {function} IS 'made by sqla_rls';
  END IF;
{if_possible}END $sqla_rls$
