-- The settings of roles, of the database and of both; the more specific ones come last.
SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(s.setrole)::text END AS role,
       pg_catalog.split_part(c.item, '=', 1) AS name,
       pg_catalog.substr(c.item, pg_catalog.strpos(c.item, '=') + 1) AS value
  FROM pg_catalog.pg_db_role_setting AS s
 CROSS JOIN pg_catalog.unnest(s.setconfig) AS c (item)
  LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
 WHERE s.setdatabase = 0 OR d.datname = pg_catalog.current_database()
 ORDER BY s.setdatabase <> 0, 1 NULLS FIRST, 2
