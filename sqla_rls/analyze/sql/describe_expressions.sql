-- Each statement is the body of a function for a moment, which is never run: Postgres spells it with every name
-- qualified, and says what it refers to.  An error undoes it.
CREATE FUNCTION pg_temp.sqla_rls_described(statements text[])
RETURNS TABLE (place int, spelling text, refs jsonb, refusal text) LANGUAGE plpgsql AS $describing$
DECLARE
  body oid;
BEGIN
  FOR i IN 1 .. cardinality(statements) LOOP
    place := i;
    spelling := NULL;
    refs := NULL;
    refusal := NULL;
    BEGIN
      EXECUTE 'CREATE FUNCTION pg_temp.sqla_rls_body() RETURNS void LANGUAGE sql BEGIN ATOMIC ' || statements[i] || '; END';
      body := to_regprocedure('pg_temp.sqla_rls_body()');
      PERFORM set_config('search_path', 'pg_catalog', true);
      spelling := pg_catalog.pg_get_function_sqlbody(body);
      SELECT jsonb_agg(jsonb_build_object(
               'reads', CASE WHEN d.refclassid = 'pg_class'::regclass THEN (
                 SELECT format('%I.%I', n.nspname, c.relname)
                   FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = d.refobjid) END,
               'column', CASE WHEN d.refclassid = 'pg_class'::regclass THEN (
                 SELECT a.attname FROM pg_attribute AS a
                  WHERE a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid <> 0) END,
               'calls', CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid::regprocedure::text
                             WHEN d.refclassid = 'pg_operator'::regclass THEN (
                 SELECT o.oprcode::regprocedure::text FROM pg_operator AS o WHERE o.oid = d.refobjid) END,
               'type', CASE WHEN d.refclassid = 'pg_type'::regclass THEN (
                 SELECT jsonb_build_array(n.nspname, t.typname)
                   FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace WHERE t.oid = d.refobjid) END))
        INTO refs
        FROM pg_depend AS d
       WHERE d.classid = 'pg_proc'::regclass AND d.objid = body
         AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass);
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        NULL;
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        refusal := SQLERRM;
    END;
    RETURN NEXT;
  END LOOP;
END $describing$
