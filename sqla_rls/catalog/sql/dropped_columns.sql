-- What a parent loses, its partitions and heirs lose.
WITH RECURSIVE dropped_column (relid, attname) AS (
  SELECT c.oid, t.column_name
    FROM unnest(:schemas, :tables, :columns) AS t (schema_name, table_name, column_name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
   UNION
  SELECT i.inhrelid, t.attname FROM dropped_column AS t JOIN pg_catalog.pg_inherits AS i ON i.inhparent = t.relid
)
