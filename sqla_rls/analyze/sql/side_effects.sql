-- What a command on a table does elsewhere: triggers that run with the rights of an owner, and referential
-- actions, which policies don't limit.
SELECT 'trigger' AS kind,
       pg_catalog.quote_ident(t.tgname) AS name,
       t.tgrelid::pg_catalog.int8 AS oid,
       NULL::pg_catalog.int8 AS target,
       t.tgfoid::pg_catalog.regprocedure::pg_catalog.text AS function,
       pg_catalog.pg_get_triggerdef(t.oid) AS definition,
       -- The bits of tgtype.
       pg_catalog.array_remove(ARRAY[
         CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END,
         CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END,
         CASE WHEN t.tgtype & 8 <> 0 THEN 'DELETE' END], NULL) AS commands,
       NULL::pg_catalog.text AS on_delete,
       NULL::pg_catalog.text AS on_update
  FROM pg_catalog.pg_trigger AS t
  JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid AND f.prosecdef
 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL
SELECT 'cascade', pg_catalog.quote_ident(k.conname), k.confrelid::pg_catalog.int8,
       k.conrelid::pg_catalog.int8, NULL, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.array_remove(ARRAY[
         CASE WHEN k.confupdtype IN ('c', 'n', 'd') THEN 'UPDATE' END,
         CASE WHEN k.confdeltype IN ('c', 'n', 'd') THEN 'DELETE' END], NULL),
       k.confdeltype::pg_catalog.text, k.confupdtype::pg_catalog.text
  FROM pg_catalog.pg_constraint AS k
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
 ORDER BY 1, 2
