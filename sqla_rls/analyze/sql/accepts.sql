CREATE OR REPLACE FUNCTION pg_temp.sqla_rls_accepts(type text, value text) RETURNS boolean LANGUAGE plpgsql AS $function$
  BEGIN
    EXECUTE 'SELECT CAST(' || pg_catalog.quote_literal(value) || ' AS ' || type || ')';
    -- The cast cuts what is too long; the column of a record doesn't.
    IF pg_catalog.right(type, 1) = ')' THEN
      EXECUTE 'SELECT * FROM pg_catalog.json_to_record($1) AS r (v ' || type || ')'
        USING pg_catalog.json_build_object('v', value);
    END IF;
    RETURN true;
  EXCEPTION WHEN OTHERS THEN
    RETURN false;
  END $function$
