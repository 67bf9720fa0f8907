{dropped_columns}
{policies}
 WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN dropped_column AS t ON t.relid = d.refobjid
                 LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.relid AND a.attname = t.attname
                WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_catalog.pg_class'::regclass
                  AND (t.attname IS NULL OR d.refobjsubid = a.attnum))
 ORDER BY n.nspname, c.relname, p.polname
