-- The privileges that objects outside of extensions and of Postgres grant.  The dropped role of an ACL has no name.
WITH objects AS (
  SELECT 'relation' AS kind, pg_catalog.format('%I.%I', n.nspname, c.relname) AS object, NULL::text AS "column",
         coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) AS acl
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   UNION ALL
  SELECT 'sequence', pg_catalog.format('%I.%I', n.nspname, c.relname), NULL,
         coalesce(c.relacl, pg_catalog.acldefault('s', c.relowner))
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE c.relkind = 'S' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   UNION ALL
  SELECT 'relation', pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname, a.attacl
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   UNION ALL
  SELECT 'schema', n.nspname, NULL, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   UNION ALL
  SELECT 'database', d.datname, NULL, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
   UNION ALL
  SELECT 'function', f.oid::pg_catalog.regprocedure::text, NULL,
         coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))
    FROM pg_catalog.pg_proc AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
   WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
)
SELECT o.kind, o.object,
       CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END AS grantee,
       x.privilege_type AS privilege, o."column"
  FROM objects AS o CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS x
