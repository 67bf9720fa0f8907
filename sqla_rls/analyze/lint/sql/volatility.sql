-- The volatility of the functions that aren't part of Postgres: i, s or v.
SELECT f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       n.nspname AS schema,
       f.proname AS name,
       f.provolatile AS volatility
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
 WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY 1
