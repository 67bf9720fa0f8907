-- Each is made as a temporary view, and undone by an error, which gives the locks back.  Some definitions
-- Postgres doesn't read as it spells them: those that differ are read a second time.
CREATE FUNCTION pg_temp.sqla_rls_views(schemas text[], views text[], definitions text[])
RETURNS TABLE (place int, same boolean, same_columns boolean, refusal text) LANGUAGE plpgsql AS $comparing$
DECLARE
  declared  text;
  live      text;
  live_oid  oid;
  temporary oid;
BEGIN
  FOR i IN 1 .. cardinality(definitions) LOOP
    place := i;
    SELECT c.oid INTO STRICT live_oid
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) = (schemas[i], views[i]);
    declared := definitions[i];
    live := pg_catalog.pg_get_viewdef(live_oid);
    refusal := NULL;
    same := false;
    BEGIN
      FOR reading IN 1 .. 2 LOOP
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_declared AS ' || declared;
        temporary := to_regclass('pg_temp.sqla_rls_declared');
        declared := pg_catalog.pg_get_viewdef(temporary);
        same_columns := NOT EXISTS (SELECT attnum, attname, atttypid, atttypmod, attcollation
                                      FROM pg_catalog.pg_attribute
                                     WHERE attrelid IN (live_oid, temporary) AND attnum > 0
                                     GROUP BY attnum, attname, atttypid, atttypmod, attcollation
                                    HAVING count(*) = 1);
        same := same_columns AND declared = live;
        EXIT WHEN same OR NOT same_columns;
        EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_live AS ' || live;
        live := pg_catalog.pg_get_viewdef(to_regclass('pg_temp.sqla_rls_live'));
        same := declared = live;
        EXIT WHEN same;
        DROP VIEW pg_temp.sqla_rls_declared, pg_temp.sqla_rls_live;
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
