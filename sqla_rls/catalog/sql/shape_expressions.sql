-- The shape of an expression is the tree that Postgres stores, without the names that a query gives to its relations
-- and its output columns, and without the places of words in the text.  The tree refers to columns by number, so
-- these names decide nothing, unless a row becomes one value: to_jsonb() makes keys of them.  An expression with such
-- a row has no shape.  The names in a tree have no bare space, parenthesis or brace, so that none looks like a node.
-- Postgres has spelled each expression before, since a cast that is written differs in the tree from one that isn't.
-- A query between two statements has the mark as the name of its column, by which the tree of a batch is divided.
CREATE FUNCTION pg_temp.sqla_rls_shapes(statements text[], mark text)
RETURNS TABLE (place int, shape text) LANGUAGE plpgsql AS $shapes$
DECLARE
  name constant text := '(?:[^\\\s(){}]|\\.)+';
  names constant text := ' :(?:(?:location|stmt_location|stmt_len) -?[0-9]+|resname ' || name ||
    '|(?:alias|eref|join_using_alias) (?:<>|\{ALIAS :aliasname ' || name ||
    ' :colnames (?:<>|\((?:[^\\(){}]|\\.)*\))\}))';
  batch text[];
  body text;
  tree text;
  parts text[];
BEGIN
  FOR start IN 1 .. cardinality(statements) BY 100 LOOP
    batch := statements[start : start + 99];
    body := format('BEGIN ATOMIC SELECT 1 AS %1$s; %2$s; SELECT 1 AS %1$s; END', mark,
                   array_to_string(batch, format('; SELECT 1 AS %s; ', mark)));
    BEGIN
      FOR reading IN 1 .. 3 LOOP
        EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.sqla_rls_body() RETURNS void LANGUAGE sql ' || body;
        body := pg_catalog.pg_get_function_sqlbody(to_regprocedure('pg_temp.sqla_rls_body()'));
      END LOOP;
      tree := (SELECT p.prosqlbody::text FROM pg_proc AS p WHERE p.oid = to_regprocedure('pg_temp.sqla_rls_body()'));
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        parts := string_to_array(tree, format(' :resname %s ', mark));
        IF cardinality(parts) = cardinality(batch) + 2 THEN
          FOR i IN 1 .. cardinality(batch) LOOP
            tree := parts[i + 1];
            CONTINUE WHEN strpos(tree, ' :varattno 0 ') > 0;
            shape := regexp_replace(tree, names, '', 'g');
            place := start + i - 1;
            RETURN NEXT;
          END LOOP;
        END IF;
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        NULL;
    END;
  END LOOP;
END $shapes$
