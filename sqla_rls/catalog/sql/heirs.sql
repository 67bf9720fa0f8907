-- A temporary table is its session's own.
WITH RECURSIVE heir (parent, child) AS (
  SELECT i.inhparent, i.inhrelid
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent AND c.relkind IN ('r', 'p', 'f')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY (:schemas)
   UNION
  SELECT i.inhparent, i.inhrelid FROM heir AS h JOIN pg_catalog.pg_inherits AS i ON i.inhparent = h.child
)
SELECT pn.nspname AS parent_schema, p.relname AS parent, n.nspname, c.relname
  FROM heir AS h
  JOIN pg_catalog.pg_class AS p ON p.oid = h.parent
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
  JOIN pg_catalog.pg_class AS c ON c.oid = h.child AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
