-- As Postgres keeps "*".
{grown_tables}
{policies}
 WHERE EXISTS (SELECT FROM grown AS g
                WHERE NOT EXISTS (SELECT attnum FROM pg_catalog.pg_attribute
                                   WHERE attrelid = g.relid AND attnum > 0 AND NOT attisdropped
                                  EXCEPT
                                  SELECT refobjsubid FROM pg_catalog.pg_depend
                                   WHERE classid = 'pg_catalog.pg_policy'::regclass AND objid = p.oid
                                     AND refclassid = 'pg_catalog.pg_class'::regclass AND refobjid = g.relid))
 ORDER BY n.nspname, c.relname, p.polname
