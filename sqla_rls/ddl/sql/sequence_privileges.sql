-- Grants or revokes privileges on the sequences of columns: on the one that a column owns, else on those that its
-- default calls.  Only the database knows their names, since a renamed table keeps its sequences.
DO {tag}
DECLARE
  relation constant regclass := {table};
  name     text;
  found    text;
  places   text[];
BEGIN
  FOREACH name IN ARRAY {columns} LOOP
    SELECT array_agg(s.sequence::regclass::text) FILTER (WHERE s.is_owned OR NOT s.any_owned) INTO places
      FROM ({sequences_of_column}) AS s;
    IF places IS NULL THEN
      RAISE NOTICE 'nothing to do: column % of table % has no sequence', name, relation;
    END IF;
    FOREACH found IN ARRAY coalesce(places, '{{}}') LOOP
      EXECUTE concat({verb}, found, {roles});
    END LOOP;
  END LOOP;
END {tag}
