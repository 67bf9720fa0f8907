-- The body of a function takes ACCESS SHARE locks, where CREATE POLICY would take ACCESS EXCLUSIVE, and is
-- never run.  The error at the end of a batch undoes it, and gives the locks back.  Each statement selects a mark
-- that no expression can hold, so that each is found again in what Postgres makes of them all.
-- A batch that is refused is halved until what is refused stands alone.
CREATE FUNCTION pg_temp.sqla_rls_spelling(statements text[], readings int, mark text)
RETURNS TABLE (spelling text, refusal text) LANGUAGE plpgsql AS $spelling$
DECLARE
  size constant int := cardinality(statements);
  part constant int := CASE WHEN size > 100 THEN 100 ELSE (size + 1) / 2 END;
  body text := format('BEGIN ATOMIC %s; SELECT %L; END', array_to_string(statements, '; '), mark);
  parts text[];
BEGIN
  IF size <= 100 THEN
    BEGIN
      FOR reading IN 1 .. readings LOOP
        EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.sqla_rls_body() RETURNS void LANGUAGE sql ' || body;
        body := pg_catalog.pg_get_function_sqlbody(to_regprocedure('pg_temp.sqla_rls_body()'));
      END LOOP;
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        parts := string_to_array(body, mark);
        IF cardinality(parts) = size + 2 THEN
          RETURN QUERY SELECT unnest(parts[2 : size + 1]), NULL;
          RETURN;
        END IF;
        refusal := 'not an expression';
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        refusal := SQLERRM;
    END;
    IF size = 1 THEN
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;
  FOR place IN 1 .. size BY part LOOP
    RETURN QUERY SELECT *
      FROM pg_temp.sqla_rls_spelling(statements[place : place + part - 1], readings, mark);
  END LOOP;
END $spelling$
