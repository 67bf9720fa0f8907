-- Creates a policy, unless the table has an equal one of that name: a revision may restore the policy of an earlier
-- one that only one database has lost.  Postgres compares the two, side by side for a moment.
DO {tag}
DECLARE
  row_of constant text := 'SELECT concat_ws('' '', polcmd, polpermissive, ARRAY(SELECT unnest(polroles) ORDER BY 1),'
    ' quote_nullable(pg_get_expr(polqual, polrelid)), quote_nullable(pg_get_expr(polwithcheck, polrelid)))'
    ' FROM pg_catalog.pg_policy WHERE polrelid = $1 AND polname = $2';
  target constant regclass := to_regclass({table});
  create_it constant text := {statement};
  found text;
  made  text;
BEGIN
  EXECUTE row_of INTO found USING target, {name};
  IF found IS NULL THEN
    EXECUTE create_it;
    RETURN;
  END IF;
  BEGIN
    EXECUTE {drop};
    EXECUTE create_it;
    EXECUTE row_of INTO made USING target, {name};
    RAISE EXCEPTION USING ERRCODE = 'RLS02';
  EXCEPTION WHEN SQLSTATE 'RLS02' THEN
    NULL;
  END;
  IF found <> made THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = {subject} ||
      ' can''t be created: the table has another policy of that name. Drop it, or generate the revision again';
  END IF;
  RAISE NOTICE 'nothing to do: % exists', {subject};
END {tag}
