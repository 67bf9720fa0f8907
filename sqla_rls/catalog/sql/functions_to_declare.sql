-- Functions that policies, column defaults and declared views call on tables with row security; functions that
-- their bodies name; and functions that some roles may execute, but not PUBLIC.
WITH RECURSIVE relation AS (
  SELECT c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY (:schemas)
     AND (c.relrowsecurity
          OR EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions)
                      WHERE option_name = 'security_invoker' AND option_value::boolean))
), called AS (
  SELECT d.refobjid AS oid
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef AS a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    JOIN relation AS c ON c.oid IN (p.polrelid, a.adrelid, r.ev_class)
   WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass
   UNION
  SELECT other.oid
    FROM called AS c
    JOIN pg_catalog.pg_proc AS p ON p.oid = c.oid AND p.oid >= 16384
    JOIN pg_catalog.pg_proc AS other
      ON strpos(p.prosrc, other.proname || '(') > 0 OR strpos(p.prosrc, quote_ident(other.proname) || '(') > 0
    JOIN pg_catalog.pg_namespace AS n ON n.oid = other.pronamespace AND n.nspname = ANY (:schemas)
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid IN (p.oid, other.oid)
                        AND d.deptype = 'e')
)
SELECT f.*, c.oid IS NOT NULL AS is_called, e.extension,
       concat(f.proname, '(', pg_catalog.oidvectortypes(p.proargtypes), ')') AS signature,
       CASE WHEN e.extension IS NULL AND f.nspname = ANY (:schemas)
            THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition,
       CASE WHEN e.extension IS NOT NULL THEN 'it belongs to an extension'
            WHEN f.nspname <> ALL (:schemas) THEN 'its schema isn''t read. Give --schema ' || quote_ident(f.nspname)
            WHEN EXISTS (SELECT FROM pg_catalog.pg_proc AS other
                          WHERE other.oid <> p.oid AND other.pronamespace = p.pronamespace
                            AND other.proname = p.proname) THEN 'others have its name'
            WHEN f.language IN ('c', 'internal') THEN 'its language is ' || f.language
            WHEN p.prosqlbody IS NOT NULL THEN 'its body isn''t a string'
            WHEN p.procost <> 100 OR p.prorows NOT IN (0, 1000) OR p.prosupport <> 0
                 OR p.protrftypes IS NOT NULL THEN 'it has COST, ROWS, SUPPORT or TRANSFORM'
            WHEN EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a
                          WHERE a.grantor <> p.proowner OR a.is_grantable AND a.grantee <> p.proowner)
            THEN 'a role holds EXECUTE on it WITH GRANT OPTION' END AS obstacle
  FROM (
{functions}
) AS f
  JOIN pg_catalog.pg_proc AS p USING (oid)
  LEFT JOIN called AS c USING (oid),
       LATERAL (SELECT max(format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I', x.extname, xn.nspname))
                  FROM pg_catalog.pg_depend AS d
                  JOIN pg_catalog.pg_extension AS x ON x.oid = d.refobjid
                  JOIN pg_catalog.pg_namespace AS xn ON xn.oid = x.extnamespace
                 WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                   AND d.deptype = 'e') AS e (extension)
 WHERE f.nspname <> 'auth' AND p.oid >= 16384
   -- The constructor of a range type comes with it.
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i'
                      AND d.refclassid = 'pg_catalog.pg_type'::regclass)
   AND (c.oid IS NOT NULL
        OR f.nspname = ANY (:schemas) AND f.nspname <> 'sqla_rls_secret' AND e.extension IS NULL
           AND EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee <> p.proowner)
           AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee = 0))
 ORDER BY p.oid
