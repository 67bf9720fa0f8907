{functions}
 AND p.pronamespace = pg_catalog.pg_my_temp_schema()
