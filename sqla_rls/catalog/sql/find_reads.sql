-- A temporary view, over a table like that of the policy, has each expression.  Postgres records the tables that the
-- view reads, the table of the policy included if a subquery reads it.  Views with security_invoker are followed,
-- other views aren't.  The error at the end rolls all back, and releases the locks.
CREATE FUNCTION pg_temp.sqla_rls_reads(schemas text[], tables text[], expressions text[])
RETURNS TABLE (place int, nspname text, relname text) LANGUAGE plpgsql AS $reading$
DECLARE
  found oid[];
BEGIN
  FOR i IN 1 .. cardinality(expressions) LOOP
    found := '{}';
    BEGIN
      EXECUTE format('CREATE TEMPORARY TABLE sqla_rls_like (LIKE %I.%I)', schemas[i], tables[i]);
      EXECUTE format(E'CREATE TEMPORARY VIEW sqla_rls_reading AS'
                      ' SELECT FROM pg_temp.sqla_rls_like AS %I WHERE (%s\n)', tables[i], expressions[i]);
      WITH RECURSIVE read (relid) AS (
        SELECT to_regclass('pg_temp.sqla_rls_reading')::oid
         UNION
        SELECT d.refobjid
          FROM read AS r
          JOIN pg_catalog.pg_class AS c ON c.oid = r.relid
          JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = c.oid
          JOIN pg_catalog.pg_depend AS d
            ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
           AND d.refclassid = 'pg_catalog.pg_class'::regclass
         WHERE c.oid = to_regclass('pg_temp.sqla_rls_reading')
            OR EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions)
                        WHERE option_name = 'security_invoker' AND option_value::boolean)
      )
      SELECT array_agg(relid) INTO found FROM read;
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        NULL;
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      -- What names new tables is read when they are there.
      WHEN OTHERS THEN
        NULL;
    END;
    RETURN QUERY SELECT i, n.nspname::text, c.relname::text
                   FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE c.oid = ANY (found) AND c.relkind IN ('r', 'p');
  END LOOP;
END $reading$
