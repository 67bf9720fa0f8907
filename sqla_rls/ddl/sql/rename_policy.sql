-- Renames a policy, unless it never had another name in this database.
DO {tag}
DECLARE
  names constant text[] := ARRAY(SELECT polname FROM pg_catalog.pg_policy WHERE polrelid = to_regclass({table}));
BEGIN
  IF {new} = ANY (names) AND {old} <> ALL (names) THEN
    RAISE NOTICE 'nothing to do: policy % on % has that name', {new}, {table};
  ELSE
    EXECUTE {statement};
  END IF;
END {tag}
