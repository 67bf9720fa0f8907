{policies}
 WHERE n.nspname = ANY (:schemas)
 ORDER BY n.nspname, c.relname, p.polname
