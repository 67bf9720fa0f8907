-- Creates a function or replaces it.
DO $sqla_rls$
DECLARE
  checking constant text := pg_catalog.current_setting('check_function_bodies');
BEGIN
  PERFORM pg_catalog.set_config('check_function_bodies', '{check_body}', true);
  EXECUTE {statement};
  PERFORM pg_catalog.set_config('check_function_bodies', checking, true);
{if_possible}END $sqla_rls$
