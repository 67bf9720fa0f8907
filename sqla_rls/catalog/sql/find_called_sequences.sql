-- Of a view, the catalog tells which sequences it calls.
CREATE FUNCTION pg_temp.sqla_rls_called(defaults text[])
RETURNS TABLE (place int, schema_name text, name text) LANGUAGE plpgsql AS $calling$
BEGIN
  FOR i IN 1 .. cardinality(defaults) LOOP
    place := i;
    BEGIN
      EXECUTE 'CREATE TEMPORARY VIEW sqla_rls_default AS SELECT ' || defaults[i];
      FOR schema_name, name IN
        SELECT n.nspname, s.relname
          FROM pg_catalog.pg_rewrite AS r
          JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
          JOIN pg_catalog.pg_class AS s
            ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
          JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
         WHERE r.ev_class = to_regclass('pg_temp.sqla_rls_default')
      LOOP
        RETURN NEXT;
      END LOOP;
      DROP VIEW pg_temp.sqla_rls_default;
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        NULL;
    END;
  END LOOP;
END $calling$
