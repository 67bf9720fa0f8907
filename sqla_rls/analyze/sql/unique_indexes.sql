SELECT x.relname AS name,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
       i.indnullsnotdistinct AS nulls_are_equal,
       i.indisunique AND i.indimmediate AND NOT i.indisexclusion AS may_arbitrate,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                 'column', a.attname,
                 'expression', pg_catalog.pg_get_indexdef(i.indexrelid, n, false),
                 'collation', CASE WHEN cl.oid IS NOT NULL THEN pg_catalog.format('%I.%I', cn.nspname, cl.collname) END,
                 'operator', pg_catalog.format('OPERATOR(%I.%s)', n_o.nspname, o.oprname))
               ORDER BY n)
          FROM pg_catalog.generate_series(1, i.indnkeyatts) AS n
          LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0
          LEFT JOIN pg_catalog.pg_collation AS cl ON cl.oid = i.indcollation[n - 1]
          LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = cl.collnamespace
          JOIN pg_catalog.pg_opclass AS oc ON oc.oid = i.indclass[n - 1]
          JOIN pg_catalog.pg_operator AS o ON o.oid = coalesce(c.conexclop[n], (
                 SELECT m.amopopr FROM pg_catalog.pg_amop AS m
                  WHERE m.amopfamily = oc.opcfamily AND m.amopstrategy = 3 AND m.amoppurpose = 's'
                    AND m.amoplefttype = oc.opcintype AND m.amoprighttype = oc.opcintype))
          JOIN pg_catalog.pg_namespace AS n_o ON n_o.oid = o.oprnamespace) AS elements
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
  LEFT JOIN pg_catalog.pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x') AND c.conrelid = i.indrelid
 WHERE i.indrelid = CAST(:oid AS pg_catalog.oid) AND (i.indisunique OR i.indisexclusion) AND i.indislive
 ORDER BY x.relname
