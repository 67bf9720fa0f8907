-- Has Postgres check the body of a function that was created before the objects that it reads.
DO $sqla_rls$
DECLARE
  checking constant text := pg_catalog.current_setting('check_function_bodies');
BEGIN
  PERFORM pg_catalog.set_config('check_function_bodies', 'on', true);
  EXECUTE pg_catalog.pg_get_functiondef({name}::regproc);
  PERFORM pg_catalog.set_config('check_function_bodies', checking, true);
END $sqla_rls$
