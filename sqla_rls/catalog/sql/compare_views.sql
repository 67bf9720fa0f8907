-- Each is made as a temporary view, and undone by an error, which gives the locks back.  Some definitions
-- Postgres doesn't read as it spells them: those that differ are read a second time.
CREATE FUNCTION pg_temp.sqla_rls_views(schemas text[], views text[], definitions text[])
RETURNS TABLE (place int, same boolean, same_columns boolean, refusal text) LANGUAGE plpgsql AS $comparing$
DECLARE
  ours      text;
  theirs    text;
  live      oid;
  temporary oid;
BEGIN
  FOR i IN 1 .. cardinality(definitions) LOOP
    place := i;
    SELECT c.oid INTO STRICT live
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) = (schemas[i], views[i]);
    ours := definitions[i];
    theirs := pg_catalog.pg_get_viewdef(live);
    refusal := NULL;
    same := false;
    BEGIN
      FOR reading IN 1 .. 2 LOOP
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_ours AS ' || ours;
        temporary := to_regclass('pg_temp.sqla_rls_ours');
        ours := pg_catalog.pg_get_viewdef(temporary);
        same_columns := NOT EXISTS (SELECT attnum, attname, atttypid, atttypmod, attcollation
                                      FROM pg_catalog.pg_attribute
                                     WHERE attrelid IN (live, temporary) AND attnum > 0
                                     GROUP BY attnum, attname, atttypid, atttypmod, attcollation
                                    HAVING count(*) = 1);
        same := same_columns AND ours = theirs;
        EXIT WHEN same OR NOT same_columns;
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_theirs AS ' || theirs;
        theirs := pg_catalog.pg_get_viewdef(to_regclass('pg_temp.sqla_rls_theirs'));
        same := ours = theirs;
        EXIT WHEN same;
        DROP VIEW pg_temp.sqla_rls_ours, pg_temp.sqla_rls_theirs;
      END LOOP;
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
END $comparing$
