-- The extensions, and their functions that other objects of the database call: a scratch server may lack them.
SELECT e.extname AS name,
       ARRAY(SELECT DISTINCT pg_catalog.jsonb_build_object(
                      'schema', n.nspname, 'name', p.proname,
                      'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
                      'returns', pg_catalog.pg_get_function_result(p.oid),
                      'volatility', CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE'
                                    ELSE 'VOLATILE' END)
               FROM pg_catalog.pg_depend AS member
               JOIN pg_catalog.pg_proc AS p ON p.oid = member.objid
               JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
               JOIN pg_catalog.pg_depend AS use ON use.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                AND use.refobjid = p.oid AND use.deptype <> 'e'
              WHERE member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND member.refobjid = e.oid AND member.deptype = 'e'
                AND member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.prokind = 'f'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS own
                                 WHERE own.classid = use.classid AND own.objid = use.objid AND own.deptype = 'e')
              ORDER BY 1) AS functions
  FROM pg_catalog.pg_extension AS e
 WHERE e.extname <> 'plpgsql'
 ORDER BY e.extname
