-- The sequences of column *name* of table *relation*.
SELECT d.sequence, d.is_owned, bool_or(d.is_owned) OVER () AS any_owned
              FROM pg_catalog.pg_attribute AS a,
                   LATERAL (SELECT objid, true FROM pg_catalog.pg_depend
                             WHERE classid = 'pg_catalog.pg_class'::regclass AND deptype IN ('a', 'i')
                               AND refclassid = 'pg_catalog.pg_class'::regclass
                               AND (refobjid, refobjsubid) = (a.attrelid, a.attnum)
                            UNION ALL
                            SELECT c.refobjid, false
                              FROM pg_catalog.pg_attrdef AS f
                              JOIN pg_catalog.pg_depend AS c
                                ON c.classid = 'pg_catalog.pg_attrdef'::regclass AND c.objid = f.oid
                               AND c.refclassid = 'pg_catalog.pg_class'::regclass
                             WHERE (f.adrelid, f.adnum) = (a.attrelid, a.attnum)) AS d (sequence, is_owned)
             WHERE a.attrelid = relation AND a.attname = name AND NOT a.attisdropped
               AND d.sequence IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'S')
