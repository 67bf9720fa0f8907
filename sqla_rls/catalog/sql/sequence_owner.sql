-- The column that owns sequence s: a serial or an identity column.
    SELECT d.refobjid AS relid, d.refobjsubid AS attnum, d.deptype = 'i' AS identity, c.relname, a.attname
      FROM pg_catalog.pg_depend AS d
      JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.oid AND s.relkind = 'S'
       AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    -- A lookup for each sequence.  Without statistics, Postgres expects one owner, and compares all with all.
    OFFSET 0
