SELECT n.nspname AS schema, c.relname AS name, f.conname AS key,
       f.confdeltype::pg_catalog.text AS on_delete, f.confupdtype::pg_catalog.text AS on_update
  FROM pg_catalog.pg_constraint AS f
  JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE f.contype = 'f'
