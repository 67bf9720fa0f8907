-- Puts back FORCE where lift_force.sql took it from.
DO {tag}
DECLARE
  lifted jsonb := coalesce(nullif(current_setting('sqla_rls.lifted', true), ''), '{{}}');
  entry  jsonb := lifted -> {name};
  blocks int   := entry ->> 'blocks';
  -- By its number, since the block may have renamed it; NULL if the block dropped it.
  found  regclass := (SELECT oid FROM pg_catalog.pg_class WHERE oid = (entry ->> 'oid')::oid);
BEGIN
  IF entry IS NULL THEN
    RETURN;
  ELSIF blocks > 1 THEN
    entry := jsonb_set(entry, '{{blocks}}', to_jsonb(blocks - 1));
    PERFORM set_config('sqla_rls.lifted', (lifted || jsonb_build_object({name}, entry))::text, false);
    RETURN;
  END IF;
  IF found IS NOT NULL THEN
    BEGIN
      EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', found);
    EXCEPTION WHEN object_in_use THEN
      -- Rows that were written wait for the check of a deferred constraint.
      SET CONSTRAINTS ALL IMMEDIATE;
      EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', found);
    END;
  END IF;
  PERFORM set_config('sqla_rls.lifted', (lifted - {name})::text, false);
END {tag}
