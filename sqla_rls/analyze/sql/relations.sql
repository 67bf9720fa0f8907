SELECT c.oid::pg_catalog.int8 AS oid,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
       n.nspname AS schema,
       c.relname AS relname,
       c.relkind::pg_catalog.text AS kind,
       c.relpersistence::pg_catalog.text AS persistence,
       c.relispartition AS is_partition,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       c.relrowsecurity AS row_security,
       c.relforcerowsecurity AS forced,
       coalesce(c.reloptions, '{}') AS options,
       EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
                WHERE o.option_name = 'security_invoker' AND o.option_value::pg_catalog.bool) AS is_invoker,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END AS query,
       pg_catalog.pg_get_partkeydef(c.oid) AS partition_key,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_bound,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.array_to_string(ARRAY[
                 pg_catalog.pg_get_userbyid(x.grantor),
                 CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
                 x.privilege_type,
                 CASE WHEN x.is_grantable THEN 'WITH GRANT OPTION' END], ' ')
                 ORDER BY pg_catalog.pg_get_userbyid(x.grantee), x.privilege_type,
                          pg_catalog.pg_get_userbyid(x.grantor))
          FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS x) AS privileges,
       {privileges_on_schema}
         AS schema_privileges,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', a.attname,
                  'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                  'base', pg_catalog.format_type(b.oid, CASE WHEN t.typtype = 'd' THEN t.typtypmod
                                                             ELSE a.atttypmod END),
                  'kind', b.typtype,
                  'category', b.typcategory,
                  'element', (SELECT pg_catalog.jsonb_build_object(
                                       'type', pg_catalog.format_type(e.oid, NULL), 'kind', e.typtype,
                                       'category', e.typcategory)
                                FROM pg_catalog.pg_type AS e WHERE e.oid = b.typelem AND b.typcategory = 'A'),
                  'labels', (SELECT pg_catalog.jsonb_agg(l.enumlabel ORDER BY l.enumsortorder)
                               FROM pg_catalog.pg_enum AS l
                              WHERE l.enumtypid IN (b.oid, nullif(b.typelem, 0))),
                  'domain_checks', CASE WHEN t.typtype = 'd' THEN (
                     SELECT pg_catalog.jsonb_agg(pg_catalog.pg_get_expr(k.conbin, 0) ORDER BY k.conname)
                       FROM unnest(based.path) AS one (oid)
                       JOIN pg_catalog.pg_constraint AS k ON k.contypid = one.oid) END,
                  'needs_value', a.attnotnull OR t.typnotnull,
                  -- Rows from before NOT VALID may have NULL, and so may the rows of children.
                  'not_null', t.typnotnull OR a.attnotnull
                    AND NOT EXISTS (
                      SELECT FROM pg_catalog.pg_constraint AS k
                       WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey[1] = a.attnum AND NOT k.convalidated)
                    AND CASE WHEN c.relhassubclass THEN NOT EXISTS (
                      WITH RECURSIVE heir (oid) AS (
                        SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid
                        UNION
                        SELECT h.inhrelid FROM heir JOIN pg_catalog.pg_inherits AS h ON h.inhparent = heir.oid)
                      SELECT FROM heir
                        JOIN pg_catalog.pg_attribute AS i
                          ON i.attrelid = heir.oid AND i.attname = a.attname AND NOT i.attisdropped
                       WHERE NOT i.attnotnull OR EXISTS (
                         SELECT FROM pg_catalog.pg_constraint AS k
                          WHERE k.conrelid = i.attrelid AND k.contype = 'n' AND k.conkey[1] = i.attnum
                                AND NOT k.convalidated)) ELSE true END,
                  'domain_holds', NOT EXISTS (
                     SELECT FROM unnest(based.path) AS one (oid)
                       JOIN pg_catalog.pg_constraint AS k ON k.contypid = one.oid
                      WHERE NOT k.convalidated),
                  'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                  'generated', CASE WHEN a.attgenerated <> ''
                                    THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                  'identity', a.attidentity,
                  -- A cast to the type of the column has the collation of the type; an expression has its own.
                  'collation', (SELECT pg_catalog.format('%I.%I', m.nspname, l.collname)
                                  FROM pg_catalog.pg_collation AS l
                                  JOIN pg_catalog.pg_namespace AS m ON m.oid = l.collnamespace
                                 WHERE l.oid = a.attcollation
                                       AND (a.attcollation <> t.typcollation OR a.attgenerated <> '')),
                  'is_deterministic', coalesce((SELECT l.collisdeterministic FROM pg_catalog.pg_collation AS l
                                                 WHERE l.oid = a.attcollation), true),
                  'privileges', (SELECT pg_catalog.jsonb_agg(pg_catalog.array_to_string(ARRAY[
                                          CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                                               ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
                                          x.privilege_type,
                                          CASE WHEN x.is_grantable THEN 'WITH GRANT OPTION' END], ' ')
                                          ORDER BY pg_catalog.pg_get_userbyid(x.grantee), x.privilege_type)
                                   FROM pg_catalog.aclexplode(a.attacl) AS x))
                ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute AS a
           JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
           -- A domain over a domain has the base of both.
           JOIN LATERAL (
             WITH RECURSIVE base (oid, basetype, path) AS (
               SELECT t.oid, t.typbasetype, ARRAY[t.oid]
               UNION ALL
               SELECT u.oid, u.typbasetype, base.path || u.oid
                 FROM base JOIN pg_catalog.pg_type AS u ON u.oid = base.basetype)
             SELECT oid, path FROM base WHERE basetype = 0) AS based ON true
           JOIN pg_catalog.pg_type AS b ON b.oid = based.oid
           LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'is_primary', i.indisprimary,
                  'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
                                FROM unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (number, place)
                                JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number))
                ORDER BY i.indisprimary DESC, pg_catalog.pg_get_indexdef(i.indexrelid))
           FROM pg_catalog.pg_index AS i
          WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL AND i.indpred IS NULL), '[]') AS keys,
       -- The unique indexes whose keys aren't all of a table, and those of expressions.
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'parts', (SELECT pg_catalog.jsonb_agg(coalesce(a.attname::pg_catalog.text,
                                     pg_catalog.pg_get_indexdef(i.indexrelid, k.place::pg_catalog.int4, false)) ORDER BY k.place)
                              FROM unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (number, place)
                              LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
                             WHERE k.place <= i.indnkeyatts),
                  'condition', pg_catalog.pg_get_expr(i.indpred, i.indrelid))
                ORDER BY pg_catalog.pg_get_indexdef(i.indexrelid))
           FROM pg_catalog.pg_index AS i
          WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)), '[]') AS partial_keys,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', f.conname,
                  'target', f.confrelid::pg_catalog.int8,
                  'is_deferrable', f.condeferrable,
                  'is_full', f.confmatchtype = 'f',
                  'definition', pg_catalog.pg_get_constraintdef(f.oid),
                  -- The rows of children have no foreign keys of their parent, but those of partitions do.
                  'holds', f.convalidated AND NOT (c.relkind = 'r' AND EXISTS (
                     SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid)),
                  'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
                                FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
                                JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number),
                  'target_columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
                                FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
                                JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number))
                ORDER BY f.conname)
           FROM pg_catalog.pg_constraint AS f
          WHERE f.conrelid = c.oid AND f.contype = 'f'
                -- Before PostgreSQL 18 every constraint is enforced.
                AND coalesce(pg_catalog.to_jsonb(f) ->> 'conenforced', 'true') = 'true'), '[]') AS foreign_keys,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'expression', pg_catalog.pg_get_expr(k.conbin, k.conrelid),
                  'holds', k.convalidated AND NOT (k.connoinherit AND EXISTS (
                     SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid)))
                ORDER BY k.conname)
           FROM pg_catalog.pg_constraint AS k
          WHERE k.conrelid = c.oid AND k.contype = 'c'
                AND coalesce(pg_catalog.to_jsonb(k) ->> 'conenforced', 'true') = 'true'), '[]') AS checks,
       pg_catalog.pg_get_partition_constraintdef(c.oid) AS partition_check,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', p.polname,
                  'permissive', p.polpermissive,
                  'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                           WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                  'roles', (SELECT pg_catalog.jsonb_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC'
                                     ELSE pg_catalog.pg_get_userbyid(r.oid) END
                                     ORDER BY pg_catalog.pg_get_userbyid(r.oid))
                              FROM unnest(p.polroles) AS r (oid)),
                  'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                  'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
                ORDER BY p.polname)
           FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid), '[]') AS policies,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::pg_catalog.text
                                     ORDER BY g.tgname)
           FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal), '[]') AS triggers,
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::pg_catalog.text
                                     ORDER BY w.rulename)
           FROM pg_catalog.pg_rewrite AS w
          WHERE w.ev_class = c.oid AND w.rulename <> '_RETURN'), '[]') AS rules,
       -- An expression may compare constants of a type that no column has.
       coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.format_type(e.oid, NULL) || ' '
                                     || (SELECT pg_catalog.jsonb_agg(l.enumlabel ORDER BY l.enumsortorder)
                                           FROM pg_catalog.pg_enum AS l WHERE l.enumtypid = e.oid)::pg_catalog.text
                                     ORDER BY pg_catalog.format_type(e.oid, NULL))
           FROM pg_catalog.pg_type AS e
          WHERE e.typtype = 'e' AND e.oid IN (
            SELECT u.refobjid
              FROM pg_catalog.pg_policy AS p
              JOIN pg_catalog.pg_depend AS u
                ON u.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND u.objid = p.oid
             WHERE p.polrelid = c.oid AND u.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
            UNION ALL
            SELECT u.refobjid
              FROM pg_catalog.pg_rewrite AS w
              JOIN pg_catalog.pg_depend AS u
                ON u.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND u.objid = w.oid
             WHERE w.ev_class = c.oid AND u.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)), '[]') AS enums,
       coalesce((
         SELECT pg_catalog.jsonb_agg(s.relname || ' ' || coalesce((
                                       SELECT pg_catalog.string_agg(x::pg_catalog.text, ',' ORDER BY x::pg_catalog.text)
                                         FROM unnest(s.relacl) AS x), '')
                                     || ' ' || pg_catalog.pg_get_userbyid(s.relowner) ORDER BY s.relname)
           FROM pg_catalog.pg_class AS s
          WHERE s.relkind = 'S' AND s.oid IN (
            SELECT u.objid FROM pg_catalog.pg_depend AS u
             WHERE u.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
               AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.refobjid = c.oid
            UNION ALL
            SELECT u.refobjid
              FROM pg_catalog.pg_attrdef AS d
              JOIN pg_catalog.pg_depend AS u
                ON u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND u.objid = d.oid
             WHERE d.adrelid = c.oid AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)), '[]')
         AS sequences,
       coalesce((
         SELECT pg_catalog.jsonb_agg(h.inhrelid::pg_catalog.int8 ORDER BY h.inhrelid)
           FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid), '[]') AS children
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_depend AS e
      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
 ORDER BY n.nspname, c.relname
