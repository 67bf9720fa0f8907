-- An aggregate with DISTINCT sorts by nothing but its arguments, so Postgres refuses to sort one expression by an
-- expression that isn't equal.  It reads the text of this function when the function is created, and neither plans
-- nor stores it.  Each query has a name with a mark that no expression can hold, so that none hides another.
-- What a batch with a refused query compares isn't part of the result: the spelling decides.
CREATE FUNCTION pg_temp.sqla_rls_equal(queries text[], mark text)
RETURNS int[] LANGUAGE plpgsql SET check_function_bodies = on AS $equal$
DECLARE
  equal int[] := '{}';
BEGIN
  FOR place IN 1 .. cardinality(queries) BY 100 LOOP
    BEGIN
      EXECUTE (SELECT format('CREATE FUNCTION pg_temp.sqla_rls_body() RETURNS void LANGUAGE sql AS %L',
                             format('SELECT %s FROM %s', string_agg(format('%I.is_equal', name), ', '),
                                    string_agg(format('(%s) AS %I (is_equal)', query, name), ', ')))
                 FROM (SELECT query, mark || number AS name
                         FROM unnest(queries[place : place + 99]) WITH ORDINALITY AS q (query, number)) AS named);
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        equal := equal || ARRAY(SELECT generate_series(place, least(place + 99, cardinality(queries))));
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        NULL;
    END;
  END LOOP;
  RETURN equal;
END $equal$
