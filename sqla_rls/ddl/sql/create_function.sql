-- Creates a function or replaces it.  PUBLIC may not execute a new function, at no moment: this is one statement.
DO $sqla_rls$
DECLARE
  checking constant text := pg_catalog.current_setting('check_function_bodies');
  existing constant oid[] := ARRAY(SELECT p.oid FROM pg_catalog.pg_proc AS p WHERE p.proname = {name});
  made     regprocedure;
BEGIN
  PERFORM pg_catalog.set_config('check_function_bodies', '{check_body}', true);
  EXECUTE {statement};
  PERFORM pg_catalog.set_config('check_function_bodies', checking, true);
  FOR made IN SELECT p.oid FROM pg_catalog.pg_proc AS p WHERE p.proname = {name} AND p.oid <> ALL (existing) LOOP
    EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || made::text || ' FROM PUBLIC';
  END LOOP;
{if_possible}END $sqla_rls$
