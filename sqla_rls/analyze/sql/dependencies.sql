-- What the parts of tables, views and functions refer to.  "relation" and "function" are what has the part.
WITH parts (classid, objid, relation, function, part) AS (
  SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, p.polrelid, NULL::pg_catalog.oid, 'policy'
    FROM pg_catalog.pg_policy AS p
  UNION ALL
  SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, w.ev_class, NULL, 'query' FROM pg_catalog.pg_rewrite AS w
  UNION ALL
  SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, d.adrelid, NULL, 'default' FROM pg_catalog.pg_attrdef AS d
  UNION ALL
  SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, k.conrelid, NULL, 'constraint'
    FROM pg_catalog.pg_constraint AS k WHERE k.conrelid <> 0 AND k.contype IN ('c', 'x')
  UNION ALL
  SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid, g.tgrelid, NULL, 'trigger'
    FROM pg_catalog.pg_trigger AS g WHERE NOT g.tgisinternal
  UNION ALL
  SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid, NULL, f.oid, 'body' FROM pg_catalog.pg_proc AS f
)
SELECT DISTINCT parts.relation::pg_catalog.int8 AS relation,
       parts.function::pg_catalog.int8 AS function,
       parts.part,
       CASE WHEN d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.refobjid::pg_catalog.int8 END
         AS reads,
       (SELECT a.attname FROM pg_catalog.pg_attribute AS a
         WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attrelid = d.refobjid
           AND a.attnum = d.refobjsubid) AS column,
       CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN d.refobjid::pg_catalog.int8 END
         AS calls
  FROM parts JOIN pg_catalog.pg_depend AS d ON d.classid = parts.classid AND d.objid = parts.objid
 WHERE d.refobjid >= 16384
   AND d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)
   AND NOT (parts.part = 'body' AND d.refobjid = parts.objid)
