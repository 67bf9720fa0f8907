-- relacl is NULL until something was granted or revoked.  The row of an owned sequence says whether its column is an
-- identity column.
WITH object AS (
  SELECT t.object_type, n.nspname, coalesce(o.relname, s.relname) AS name, o.attname, s.relowner AS owner,
         coalesce(s.relacl, pg_catalog.acldefault(t.letter, s.relowner)) AS acl,
         CASE WHEN o.relid IS NOT NULL THEN s.relname END AS sequence, o.identity
    FROM (VALUES ('r'::"char", 'TABLE', 'r'::"char"), ('p', 'TABLE', 'r'), ('v', 'TABLE', 'r'),
                 ('m', 'TABLE', 'r'), ('f', 'TABLE', 'r'), ('S', 'SEQUENCE', 's'))
           AS t (relkind, object_type, letter)
    JOIN pg_catalog.pg_class AS s USING (relkind)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
    LEFT JOIN LATERAL (
{sequence_owner}
         ) AS o ON true
   WHERE n.nspname = ANY (:schemas)
  UNION ALL
  SELECT 'TABLE', n.nspname, c.relname, a.attname, c.relowner, a.attacl, NULL, NULL
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.nspname = ANY (:schemas)
  UNION ALL
  SELECT 'FUNCTION', f.schema, concat(f.name, '(' || f.arguments), NULL, p.proowner,
         coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), NULL, NULL
    FROM unnest(:function_schemas, :functions, :arguments) AS f (schema, name, arguments)
    JOIN pg_catalog.pg_proc AS p
      ON p.oid = coalesce(pg_catalog.to_regprocedure(format('%I.%I(', f.schema, f.name) || f.arguments)::oid,
                          CASE WHEN f.arguments IS NULL
                               THEN pg_catalog.to_regproc(format('%I.%I', f.schema, f.name))::oid END)
  UNION ALL
  SELECT 'SCHEMA', NULL, n.nspname, NULL, n.nspowner,
         coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)), NULL, NULL
    FROM pg_catalog.pg_namespace AS n
   WHERE n.nspname = ANY (:schemas) OR n.nspname IN ('auth', 'public')
  UNION ALL
  SELECT 'DATABASE', NULL, '', NULL, d.datdba, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba)), NULL,
         NULL
    FROM pg_catalog.pg_database AS d
   WHERE d.datname = pg_catalog.current_database()
)
SELECT o.object_type, o.nspname, o.name, o.attname, a.privilege_type, a.is_grantable,
       CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee,
       CASE WHEN a.grantor <> o.owner THEN pg_catalog.pg_get_userbyid(a.grantor)::text END AS grantor,
       NULL AS sequence, NULL AS identity
  FROM object AS o, pg_catalog.aclexplode(o.acl) AS a
 WHERE a.grantee <> o.owner AND (a.grantee = 0 OR o.object_type <> 'DATABASE')
UNION ALL
SELECT o.object_type, o.nspname, o.name, CASE WHEN o.sequence IS NOT NULL THEN o.attname END, NULL, NULL,
       pg_catalog.pg_get_userbyid(o.owner)::text, NULL, o.sequence, o.identity
  FROM object AS o
 WHERE o.attname IS NULL OR o.sequence IS NOT NULL
