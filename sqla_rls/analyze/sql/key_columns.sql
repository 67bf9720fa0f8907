(SELECT pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY k.place)
   FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
   JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number)
