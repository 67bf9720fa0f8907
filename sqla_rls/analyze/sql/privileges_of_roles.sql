-- The functions, sequences and schemas that each role may use.
SELECT r.rolname AS role,
       ARRAY(SELECT f.oid::pg_catalog.int8
               FROM pg_catalog.pg_proc AS f
              WHERE (f.oid >= 16384 OR f.proacl IS NOT NULL)
                AND pg_catalog.has_function_privilege(r.oid, f.oid, 'EXECUTE')
              ORDER BY 1) AS functions,
       ARRAY(SELECT c.oid::pg_catalog.int8
               FROM pg_catalog.pg_class AS c
              WHERE CASE WHEN c.relkind = 'S'
                         THEN pg_catalog.has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE') END
              ORDER BY 1) AS sequences,
       ARRAY(SELECT n.oid::pg_catalog.int8
               FROM pg_catalog.pg_namespace AS n
              WHERE pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
              ORDER BY 1) AS schemas
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname = ANY (CAST(:roles AS pg_catalog.text[]))
