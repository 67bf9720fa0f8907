-- What a parent gains, its partitions and heirs gain.
WITH RECURSIVE grown (relid) AS (
  SELECT c.oid
    FROM unnest(:schemas, :tables) AS t (schema_name, table_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid FROM grown AS g JOIN pg_catalog.pg_inherits AS i ON i.inhparent = g.relid
)
