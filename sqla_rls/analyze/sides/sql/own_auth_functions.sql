-- Gives functions of schema auth that the scratch server's superuser made to the owner of most tables: in a migration,
-- that role makes them.
DO $$
DECLARE
  owner    regrole;
  function regprocedure;
BEGIN
  SELECT c.relowner INTO owner FROM pg_class AS c
   WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND c.relowner <> 10
   GROUP BY c.relowner ORDER BY count(*) DESC, c.relowner LIMIT 1;
  IF owner IS NULL THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'auth' AND nspowner = 10) THEN
    EXECUTE format('ALTER SCHEMA auth OWNER TO %s', owner);
  END IF;
  FOR function IN
    SELECT p.oid FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.nspname = 'auth' AND p.proowner = 10 AND obj_description(p.oid, 'pg_proc') = 'made by sqla_rls'
  LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO %s', function, owner);
  END LOOP;
END $$
