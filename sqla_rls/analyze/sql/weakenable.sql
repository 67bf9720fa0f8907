WITH callers (oid, name) AS (
  SELECT 0::pg_catalog.oid, 'PUBLIC'
  UNION ALL
  SELECT r.oid, pg_catalog.quote_ident(r.rolname)
    FROM pg_catalog.pg_roles AS r
   WHERE NOT r.rolsuper AND NOT r.rolbypassrls
     AND (EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE r.oid = ANY (p.polroles))
          OR EXISTS (SELECT FROM pg_catalog.pg_class AS g, pg_catalog.aclexplode(g.relacl) AS x
                      WHERE x.grantee = r.oid AND g.relowner <> r.oid AND g.oid >= 16384))),
commands (name, letter) AS (VALUES ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd'))
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
       n.nspname AS schema,
       c.relname AS relname,
       c.relkind = 'v' AS is_view,
       c.relrowsecurity AS row_security,
       c.relforcerowsecurity AS forced,
       (SELECT o.option_value FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
         WHERE o.option_name = 'security_invoker') AS invoker,
       (SELECT pg_catalog.jsonb_object_agg(a.attname, pg_catalog.format_type(a.atttypid, NULL))
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', p.polname,
                  'quoted', pg_catalog.quote_ident(p.polname),
                  'permissive', p.polpermissive,
                  'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                           WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                  'roles', (SELECT pg_catalog.jsonb_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC'
                                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.oid)) END ORDER BY r.oid)
                              FROM unnest(p.polroles) AS r (oid)),
                  'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                  'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
                  'comment', pg_catalog.quote_literal(pg_catalog.obj_description(p.oid, 'pg_policy')))
                ORDER BY p.polname)
           FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid), '[]') AS policies,
       -- Privileges that neither the table nor a column gives, and that some policy would not make vain.
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('role', r.name, 'privilege', k.name)
                                     ORDER BY r.name, k.name)
           FROM callers AS r CROSS JOIN commands AS k
          WHERE r.oid <> c.relowner
            AND CASE r.oid WHEN 0 THEN NOT EXISTS (
                    SELECT FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS x
                     WHERE x.grantee = 0 AND x.privilege_type = k.name)
                ELSE NOT pg_catalog.has_table_privilege(r.oid, c.oid, k.name) END
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_attribute AS a, pg_catalog.aclexplode(a.attacl) AS x
                 WHERE a.attrelid = c.oid AND x.grantee = r.oid AND x.privilege_type = k.name)
            AND (c.relkind = 'v' OR EXISTS (
                SELECT FROM pg_catalog.pg_policy AS p, unnest(p.polroles) AS named (oid)
                 WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN (k.letter, '*')
                   AND (named.oid = 0 OR r.oid <> 0 AND pg_catalog.pg_has_role(r.oid, named.oid, 'USAGE'))))),
         '[]') AS grantable
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v')
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
 ORDER BY n.nspname, c.relname
