-- Inserts the rows of a world, runs each statement as each caller, and undoes all of it.
--
-- A statement begins with a letter: r returns rows, n only their number.  What a statement did is a JSON
-- text: {"rows": […]}, {"count": …} or {"error": "SQLSTATE: message"}.
CREATE OR REPLACE FUNCTION pg_temp.sqla_rls_try(fixtures text[], actors jsonb, statements text[]) RETURNS jsonb
  LANGUAGE plpgsql AS $function$
  DECLARE
    results text[] := '{}';
    rejected text;
    actor jsonb;
    setting record;
    statement text;
    one record;
    affected bigint;
    outcome text;
    found_rows text[];
  BEGIN
    BEGIN
      FOREACH statement IN ARRAY fixtures LOOP
        EXECUTE statement;
      END LOOP;
      SET CONSTRAINTS ALL IMMEDIATE;
      FOR actor IN SELECT * FROM pg_catalog.jsonb_array_elements(actors) LOOP
        BEGIN
          FOR setting IN SELECT * FROM pg_catalog.jsonb_each_text(actor -> 'settings') LOOP
            PERFORM pg_catalog.set_config(setting.key, setting.value, true);
          END LOOP;
          PERFORM pg_catalog.set_config('role', actor ->> 'role', true);
          -- The plan of a function may keep what a function wrongly IMMUTABLE returned to another caller.
          DISCARD PLANS;
          FOREACH statement IN ARRAY statements LOOP
            BEGIN
              IF starts_with(statement, 'r') THEN
                found_rows := '{}';
                FOR one IN EXECUTE substr(statement, 2) LOOP
                  -- The other side has another time.
                  found_rows := found_rows || replace(replace(pg_catalog.to_jsonb(one)::text,
                    pg_catalog.to_jsonb(now())::text, '"now"'), pg_catalog.to_jsonb(localtimestamp)::text, '"now"');
                END LOOP;
                outcome := pg_catalog.json_build_object('rows', pg_catalog.to_json(found_rows));
              ELSE
                EXECUTE substr(statement, 2);
                GET DIAGNOSTICS affected = ROW_COUNT;
                SET CONSTRAINTS ALL IMMEDIATE;
                outcome := pg_catalog.json_build_object('count', affected);
              END IF;
              RAISE EXCEPTION USING ERRCODE = 'RLS00';
            EXCEPTION
              WHEN SQLSTATE 'RLS00' THEN
                results := results || outcome;
              WHEN OTHERS THEN
                results := results || pg_catalog.json_build_object(
                  'error', SQLSTATE || ': ' || SQLERRM, 'is_read', starts_with(statement, 'rSELECT'))::text;
            END;
          END LOOP;
          RAISE EXCEPTION USING ERRCODE = 'RLS00';
        EXCEPTION
          WHEN SQLSTATE 'RLS00' THEN
            NULL;
          -- The role doesn't exist here, or a setting isn't valid.
          WHEN OTHERS THEN
            FOREACH statement IN ARRAY statements LOOP
              results := results || pg_catalog.json_build_object('error', SQLSTATE || ': ' || SQLERRM)::text;
            END LOOP;
        END;
      END LOOP;
      RAISE EXCEPTION USING ERRCODE = 'RLS00';
    EXCEPTION
      WHEN SQLSTATE 'RLS00' THEN
        NULL;
      WHEN OTHERS THEN
        rejected := SQLSTATE || ': ' || SQLERRM;
    END;
    RETURN pg_catalog.jsonb_build_object('rejected', rejected, 'results', pg_catalog.to_jsonb(results));
  END $function$
