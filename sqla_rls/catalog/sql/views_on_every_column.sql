-- As Postgres keeps "*".
{grown_tables}
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class AND c.relkind = 'v' AND c.oid >= 16384
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE EXISTS (SELECT FROM grown AS g
                WHERE NOT EXISTS (SELECT attnum FROM pg_catalog.pg_attribute
                                   WHERE attrelid = g.relid AND attnum > 0 AND NOT attisdropped
                                  EXCEPT
                                  SELECT refobjsubid FROM pg_catalog.pg_depend
                                   WHERE classid = 'pg_catalog.pg_rewrite'::regclass AND objid = r.oid
                                     AND refclassid = 'pg_catalog.pg_class'::regclass AND refobjid = g.relid))
