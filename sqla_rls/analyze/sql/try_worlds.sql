SELECT pg_temp.sqla_rls_try(
         ARRAY(SELECT pg_catalog.jsonb_array_elements_text(w.world -> 'fixtures')),
         CAST(:actors AS pg_catalog.jsonb),
         ARRAY(SELECT pg_catalog.jsonb_array_elements_text(w.world -> 'statements')))
  FROM pg_catalog.jsonb_array_elements(CAST(:worlds AS pg_catalog.jsonb)) WITH ORDINALITY AS w (world, place)
 ORDER BY w.place
