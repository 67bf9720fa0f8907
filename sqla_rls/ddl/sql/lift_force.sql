-- Lifts FORCE from a table that has it.  The session keeps which it was, and how many blocks are open.
DO {tag}
DECLARE
  lifted jsonb := coalesce(nullif(current_setting('sqla_rls.lifted', true), ''), '{{}}');
  entry  jsonb := lifted -> {name};
BEGIN
  IF entry IS NOT NULL THEN
    entry := jsonb_set(entry, '{{blocks}}', to_jsonb((entry ->> 'blocks')::int + 1));
  ELSIF (SELECT relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = {name}::regclass) THEN
    ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
    entry := jsonb_build_object('oid', {name}::regclass::oid, 'blocks', 1);
  END IF;
  IF entry IS NOT NULL THEN
    PERFORM set_config('sqla_rls.lifted', (lifted || jsonb_build_object({name}, entry))::text, false);
  END IF;
END {tag}
