SELECT n.nspname, c.relname, a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
  FROM unnest(:schemas, :tables, :columns) AS t (schema_name, table_name, column_name)
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.table_name
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = t.column_name AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
