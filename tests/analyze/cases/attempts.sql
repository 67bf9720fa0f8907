-- The effects of each of the statements, run as a caller and undone, and what the client would be told.
CREATE FUNCTION pg_temp.attempts(statements text[], settings jsonb, contents text)
RETURNS TABLE (number bigint, effects text[], told text) LANGUAGE plpgsql AS $function$
DECLARE
  statement text;
BEGIN
  FOR number, statement IN SELECT ordinality, s FROM unnest(statements) WITH ORDINALITY AS u (s, ordinality) LOOP
    BEGIN
      PERFORM set_config(key, value, true) FROM jsonb_each_text(settings - 'role');
      PERFORM set_config('role', settings ->> 'role', true);
      IF statement LIKE 'SELECT%' THEN
        EXECUTE format('SELECT array_agg(r::text) FROM (%s) AS r', statement) INTO effects;
        told := format('%s rows', coalesce(cardinality(effects), 0));
      ELSE
        EXECUTE statement;
        GET DIAGNOSTICS told = ROW_COUNT;
        told := told || ' rows';
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM set_config('role', 'none', true);
        EXECUTE contents INTO effects;
      END IF;
      RAISE SQLSTATE 'UNDO0';
    EXCEPTION
      WHEN SQLSTATE 'UNDO0' THEN NULL;
      WHEN OTHERS THEN
        effects := NULL;
        told := SQLSTATE || ': ' || SQLERRM;
    END;
    RETURN NEXT;
  END LOOP;
END $function$
