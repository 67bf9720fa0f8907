-- The savepoint around undoes all that is made here.  A call by itself causes the same error message as within
-- a view or a function, in any language of the server.  Round 0 makes the tables.  In round 2, functions read views.
CREATE FUNCTION pg_temp.sqla_rls_missing(missing text[], preparing text[], statements text[])
RETURNS TABLE (place int, name text) LANGUAGE plpgsql AS $missing$
DECLARE
  refusals jsonb := '{}';
  call     text;
  queue    text[];
BEGIN
  FOREACH name IN ARRAY missing LOOP
    FOREACH call IN ARRAY ARRAY[format('SELECT auth.%I()', name), format('SELECT %I()', name)] LOOP
      BEGIN
        EXECUTE call;
      EXCEPTION
        WHEN undefined_function THEN
          refusals := refusals || jsonb_build_object(SQLERRM, name);
        WHEN OTHERS THEN
          NULL;
      END;
    END LOOP;
  END LOOP;
  FOR round IN 0 .. 2 LOOP
    queue := CASE round WHEN 0 THEN preparing ELSE statements END;
    FOR i IN 1 .. cardinality(queue) LOOP
      BEGIN
        EXECUTE queue[i];
      EXCEPTION
        WHEN undefined_function THEN
          IF round > 0 AND refusals ? SQLERRM THEN
            place := i;
            name := refusals ->> SQLERRM;
            RETURN NEXT;
          END IF;
        WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
          RAISE;
        WHEN OTHERS THEN
          NULL;
      END;
    END LOOP;
  END LOOP;
END $missing$
