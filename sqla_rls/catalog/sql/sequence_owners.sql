-- The columns that own sequences: serial ones, and identity columns.
SELECT d.objid AS sequence, d.refobjid AS relid, d.refobjsubid AS attnum, d.deptype = 'i' AS identity,
       c.relname, a.attname
  FROM pg_catalog.pg_depend AS d
  JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
   AND d.objid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'S')
