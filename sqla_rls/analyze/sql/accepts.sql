CREATE OR REPLACE FUNCTION pg_temp.sqla_rls_accepts(type text, value text) RETURNS boolean LANGUAGE plpgsql AS $function$
  BEGIN
    EXECUTE 'SELECT CAST(' || pg_catalog.quote_literal(value) || ' AS ' || type || ')';
    RETURN true;
  EXCEPTION WHEN OTHERS THEN
    RETURN false;
  END $function$
