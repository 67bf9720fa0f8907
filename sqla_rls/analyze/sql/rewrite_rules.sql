-- The rules of CREATE RULE, but those that make a view.  They run with the rights of the relation's owner.
SELECT pg_catalog.quote_ident(w.rulename) AS name,
       w.ev_class::pg_catalog.int8 AS oid,
       CASE w.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END AS command,
       pg_catalog.pg_get_ruledef(w.oid) AS definition
  FROM pg_catalog.pg_rewrite AS w
 WHERE w.ev_type <> '1' AND w.ev_enabled <> 'D' AND w.ev_class >= 16384
 ORDER BY 2, 1
