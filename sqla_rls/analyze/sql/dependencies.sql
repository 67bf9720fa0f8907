-- What the parts of tables, views and functions refer to.  "relation" and "function" are what has the part.
WITH depend AS MATERIALIZED (
  SELECT d.classid, d.objid,
         CASE WHEN d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.refobjid END AS relation,
         CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN d.refobjid
              WHEN d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass THEN (
                SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator AS o WHERE o.oid = d.refobjid)
         END AS function,
         CASE WHEN d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass THEN d.refobjid END AS type,
         d.refobjsubid
    FROM pg_catalog.pg_depend AS d
   WHERE d.refobjid >= 16384
     AND d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                          'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
     AND d.classid NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
), parts AS (
  SELECT p.polrelid AS relation, NULL::pg_catalog.oid AS function, 'policy' AS part, d.relation AS reads,
         d.refobjsubid AS number, d.function AS calls, d.type, p.polname AS policy
    FROM depend AS d JOIN pg_catalog.pg_policy AS p ON p.oid = d.objid
   WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
  UNION
  SELECT w.ev_class, NULL, 'query', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d JOIN pg_catalog.pg_rewrite AS w ON w.oid = d.objid
   WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  UNION
  SELECT e.adrelid, NULL, 'default', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d JOIN pg_catalog.pg_attrdef AS e ON e.oid = d.objid
   WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
  UNION
  SELECT k.conrelid, NULL, 'constraint', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d JOIN pg_catalog.pg_constraint AS k ON k.oid = d.objid AND k.contype IN ('c', 'x')
   WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.conrelid <> 0
  UNION
  SELECT a.attrelid, NULL, 'constraint', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d
    JOIN pg_catalog.pg_constraint AS k ON k.oid = d.objid AND k.contypid <> 0
    JOIN pg_catalog.pg_attribute AS a ON a.atttypid = k.contypid
   WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
  UNION
  SELECT g.tgrelid, NULL, 'trigger', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d JOIN pg_catalog.pg_trigger AS g ON g.oid = d.objid AND NOT g.tgisinternal
   WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  UNION
  SELECT NULL, d.objid, 'body', d.relation, d.refobjsubid, d.function, d.type, NULL
    FROM depend AS d
   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.function IS DISTINCT FROM d.objid
)
SELECT p.relation::pg_catalog.int8 AS relation,
       p.function::pg_catalog.int8 AS function,
       p.part,
       p.policy,
       p.reads::pg_catalog.int8 AS reads,
       a.attname AS column,
       p.calls::pg_catalog.int8 AS calls,
       CASE WHEN t.oid IS NOT NULL THEN ARRAY[n.nspname::pg_catalog.text, t.typname::pg_catalog.text] END AS type
  FROM parts AS p
  LEFT JOIN pg_catalog.pg_type AS t ON t.oid = p.type
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.reads AND a.attnum = p.number AND p.number <> 0
