SELECT p.polname AS name,
       p.polpermissive AS permissive,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                     ELSE 'ALL' END AS command,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS using,
       pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS check,
       0 = ANY (p.polroles) OR EXISTS (
         SELECT FROM unnest(p.polroles) AS named (oid)
          WHERE named.oid <> 0 AND pg_catalog.pg_has_role(:role, named.oid, 'USAGE')) AS applies
  FROM pg_catalog.pg_policy AS p
 WHERE p.polrelid = CAST(:oid AS pg_catalog.oid)
 ORDER BY p.polpermissive DESC, p.polname
