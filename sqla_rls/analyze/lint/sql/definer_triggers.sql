-- The trigger functions with the rights of their owners, and the commands that fire their triggers: on the table
-- itself, and on relations through which a command reaches it. A function without a trigger has one row.
WITH RECURSIVE definer AS (
  SELECT f.oid, f.prorettype, f.proowner, f.proconfig
    FROM pg_catalog.pg_proc AS f
    JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE f.prosecdef AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     AND f.prorettype IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
     AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend AS e
        WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e')
), fired AS (
  -- The bits of tgtype: 1 FOR EACH ROW, 4 INSERT, 8 DELETE, 16 UPDATE, 32 TRUNCATE.
  SELECT t.oid, t.tgrelid AS relation, t.tgtype & 60 AS events, t.tgtype & 1 = 1 AS for_each_row
    FROM pg_catalog.pg_trigger AS t
    JOIN definer AS f ON f.oid = t.tgfoid
   -- Only a superuser fires a trigger of replicas.
   WHERE t.tgenabled NOT IN ('D', 'R')
   UNION
  SELECT f.oid, w.relation, w.events, f.for_each_row
    FROM fired AS f
   CROSS JOIN LATERAL (
     -- UPDATE of a partitioned table may move a row: it is deleted and inserted.
     SELECT i.inhparent AS relation, CASE WHEN f.for_each_row THEN f.events | 16 ELSE f.events & 32 END AS events
       FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = f.relation
      UNION ALL
     SELECT k.confrelid,
            CASE WHEN k.confdeltype = 'c' AND f.events & 8 <> 0 OR k.confdeltype IN ('n', 'd') AND f.events & 16 <> 0
                 THEN 8 ELSE 0 END
            | CASE WHEN k.confupdtype IN ('c', 'n', 'd') THEN f.events & 16 ELSE 0 END
       FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f' AND k.conrelid = f.relation
      UNION ALL
     SELECT v.oid,
            CASE r.ev_type WHEN '2' THEN 16 WHEN '3' THEN 4 WHEN '4' THEN 8
                 -- The bits of pg_relation_is_updatable(): 4 UPDATE, 8 INSERT, 16 DELETE.
                 ELSE f.events & ((u.bits & 4) << 2 | (u.bits & 24) >> 1) END
       FROM pg_catalog.pg_depend AS d
       JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
       JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class AND v.oid <> f.relation
      CROSS JOIN LATERAL (SELECT pg_catalog.pg_relation_is_updatable(v.oid, false) AS bits) AS u
      WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = f.relation
   ) AS w
   WHERE w.events <> 0
)
SELECT f.oid::pg_catalog.regprocedure::pg_catalog.text AS signature,
       pg_catalog.pg_get_userbyid(f.proowner) AS owner,
       (SELECT pg_catalog.substr(s.setting, pg_catalog.length('search_path=') + 1)
          FROM unnest(f.proconfig) AS s (setting)
         WHERE pg_catalog.starts_with(s.setting, 'search_path=')) AS search_path,
       -- An event trigger has no table: each role fires it.
       (SELECT min(pg_catalog.quote_ident(e.evtname))
          FROM pg_catalog.pg_event_trigger AS e WHERE e.evtfoid = f.oid AND e.evtenabled NOT IN ('D', 'R')) AS event_trigger,
       f.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype AS is_of_tables,
       pg_catalog.quote_ident(t.tgname) AS trigger,
       (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid = t.tgrelid) AS "table",
       (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid = w.relation) AS relation,
       pg_catalog.array_remove(ARRAY[
         CASE WHEN w.events & 4 <> 0 THEN 'INSERT' END,
         CASE WHEN w.events & 16 <> 0 THEN 'UPDATE' END,
         CASE WHEN w.events & 8 <> 0 THEN 'DELETE' END,
         CASE WHEN w.events & 32 <> 0 THEN 'TRUNCATE' END], NULL) AS commands
  FROM definer AS f
  LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgfoid = f.oid
   AND t.tgenabled NOT IN ('D', 'R')
  LEFT JOIN fired AS w ON w.oid = t.oid
 -- The table of the trigger comes before the ways to it.
 ORDER BY 1, w.relation IS DISTINCT FROM t.tgrelid, 8, 6
