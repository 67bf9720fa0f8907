-- Restores privileges of roles that may never have existed in this cluster.
DO {tag}
DECLARE
  missing constant text := (SELECT string_agg(name, ', ') FROM unnest({roles}) AS name
                             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name));
BEGIN
  IF missing IS NULL THEN
    EXECUTE {statement};
  ELSE
    RAISE NOTICE 'nothing to do: there is no role %', missing;
  END IF;
END {tag}
