-- Runs a statement about an object that may never have existed in this database.
DO {tag}
BEGIN
  EXECUTE {statement};
EXCEPTION
  WHEN undefined_object OR undefined_table OR undefined_column OR undefined_function OR invalid_schema_name THEN
    RAISE NOTICE 'nothing to do: %', SQLERRM;
END {tag}
