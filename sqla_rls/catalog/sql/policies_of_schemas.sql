{policies}
 WHERE n.nspname = ANY (:schemas)
