-- Renames a policy, which in another database may never have had another name.
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
