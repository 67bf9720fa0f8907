-- Each condition of the setting sqla_rls.asked on all units; if it raises an error, on each unit by itself.
-- The setting sqla_rls.answers is a list of words, one a condition, of t, f, and e for an error.
DO $sqla_rls_answers$
DECLARE
  asked CONSTANT pg_catalog.jsonb := pg_catalog.current_setting('sqla_rls.asked');
  units CONSTANT pg_catalog.jsonb := pg_catalog.current_setting('sqla_rls.units');
  of_rows CONSTANT pg_catalog.text[] := pg_catalog.string_to_array(
    pg_catalog.current_setting('sqla_rls.errors_of_rows'), ',');
  answers pg_catalog.jsonb := '[]';
  condition pg_catalog.jsonb;
  unit pg_catalog.jsonb;
  word pg_catalog.text;
  letter pg_catalog.text;
BEGIN
  FOR condition IN SELECT pg_catalog.jsonb_array_elements(asked) LOOP
    BEGIN
      EXECUTE condition ->> 'all' INTO STRICT word;
    EXCEPTION WHEN OTHERS THEN
      IF SQLSTATE <> ALL (of_rows) AND pg_catalog.left(SQLSTATE, 2) <> ALL (of_rows) THEN
        RAISE;
      END IF;
      word := '';
      -- An error that ends this block leaves the statement.
      IF EXISTS (SELECT FROM pg_catalog.pg_prepared_statements AS p WHERE p.name = 'sqla_rls_one') THEN
        DEALLOCATE sqla_rls_one;
      END IF;
      -- EXECUTE … USING would make a plan for each unit.
      EXECUTE 'PREPARE sqla_rls_one (pg_catalog.jsonb) AS ' || (condition ->> 'one');
      FOR unit IN SELECT pg_catalog.jsonb_array_elements(units) LOOP
        BEGIN
          EXECUTE pg_catalog.format('EXECUTE sqla_rls_one (%L)', unit) INTO STRICT letter;
        EXCEPTION WHEN OTHERS THEN
          IF SQLSTATE <> ALL (of_rows) AND pg_catalog.left(SQLSTATE, 2) <> ALL (of_rows) THEN
            RAISE;
          END IF;
          letter := 'e';
        END;
        word := word || letter;
      END LOOP;
      DEALLOCATE sqla_rls_one;
    END;
    answers := answers || pg_catalog.to_jsonb(word);
  END LOOP;
  PERFORM pg_catalog.set_config('sqla_rls.answers', answers::pg_catalog.text, true);
END
$sqla_rls_answers$
