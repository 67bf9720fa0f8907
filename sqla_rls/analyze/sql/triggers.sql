SELECT t.tgname
  FROM pg_catalog.pg_trigger AS t
 WHERE t.tgrelid = CAST(:oid AS pg_catalog.oid) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
   -- The bits of tgtype: 1 is FOR EACH ROW, 2 is BEFORE.
   AND t.tgtype & 3 = 3
   AND t.tgtype & CASE CAST(:command AS pg_catalog.text) WHEN 'INSERT' THEN 4 WHEN 'DELETE' THEN 8 WHEN 'UPDATE' THEN 16 ELSE 0 END <> 0
 ORDER BY t.tgname
