SELECT coalesce((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', c.conname, 'expression', pg_catalog.pg_get_expr(c.conbin, c.conrelid)) ORDER BY c.conname)
           FROM pg_catalog.pg_constraint AS c
          WHERE c.contype = 'c' AND c.conrelid = t.oid
                -- Before PostgreSQL 18 every constraint is enforced.
                AND coalesce(pg_catalog.to_jsonb(c) ->> 'conenforced', 'true') = 'true'), '[]') AS checks,
       CASE WHEN t.relispartition THEN pg_catalog.pg_get_partition_constraintdef(t.oid) END AS bounds,
       CASE WHEN t.relkind = 'p' THEN coalesce((
         SELECT pg_catalog.jsonb_agg(coalesce(pg_catalog.pg_get_partition_constraintdef(p.relid), 'true'))
           FROM pg_catalog.pg_partition_tree(t.oid) AS p WHERE p.isleaf), '[]') END AS partitions
  FROM pg_catalog.pg_class AS t
 WHERE t.oid = CAST(:oid AS pg_catalog.oid)
