-- The privileges that no statement of a world needs, of the roles that don't own the relation.
SELECT c.oid::pg_catalog.int8 AS oid, r.rolname AS role, pg_catalog.array_agg(p.name ORDER BY p.name) AS privileges
  FROM pg_catalog.pg_class AS c
 CROSS JOIN pg_catalog.pg_roles AS r
 CROSS JOIN LATERAL (
   SELECT k.name || g.option AS name
     FROM (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('REFERENCES'), ('TRUNCATE'), ('TRIGGER'),
                  ('MAINTAIN')) AS k (name)
    CROSS JOIN (VALUES (''), (' WITH GRANT OPTION')) AS g (option)
    WHERE (g.option <> '' OR k.name NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
          -- Before PostgreSQL 17, Postgres doesn't know the word.
          AND (k.name <> 'MAINTAIN' OR pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 170000)
          AND CASE WHEN k.name IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                   THEN pg_catalog.has_any_column_privilege(r.oid, c.oid, k.name || g.option)
                   ELSE pg_catalog.has_table_privilege(r.oid, c.oid, k.name || g.option) END) AS p
 WHERE c.oid = ANY (CAST(:oids AS pg_catalog.oid[]))
       AND NOT r.rolsuper AND r.rolname !~ '^pg_' AND NOT pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE')
 GROUP BY c.oid, r.rolname
