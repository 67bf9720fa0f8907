-- The portable functions as create_auth_functions.sql would make them, in pg_temp, for comparison.
DO $sqla_rls$
DECLARE
  definition record;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  FOR definition IN
{auth_functions}
  LOOP
    EXECUTE format('CREATE FUNCTION pg_temp.%I() %s', definition.name, definition.body);
  END LOOP;
END $sqla_rls$
