-- Forbids actions of injected SQL in this database that only a superuser can forbid.  Read it, remove the statements
-- that would break your application, and run it as a superuser, in each database.  It may run again.  Postgres
-- can't forbid these actions, and you prevent them elsewhere:
--
--   * ALTER ROLE app PASSWORD: a caller's SQL connects as app by its own password, with dblink, or from anywhere.  In
--     pg_hba.conf let app log in by another method (cert, gss, ldap), and only from the application's hosts:
--     the method scram-sha-256 isn't enough.
--   * Such a connection with pg_session_jwt: without a key, it accepts any claims.  A client may also bring its
--     own key, and sign its claims.  A JWK in postgresql.conf, after a restart, prevents the first, not the second.
--   * ALTER ROLE app SET, LOCK TABLE, setseed(): see docs/security/beyond_connection.md.
--   * PREPARE TRANSACTION: leave max_prepared_transactions at 0.

-- DROP OWNED removes the role from every policy.  Only superusers, owners of the database, and owners of tables
-- with row security may still run it.  To undo this: DROP SCHEMA sqla_rls_harden CASCADE.
CREATE SCHEMA IF NOT EXISTS sqla_rls_harden;
CREATE OR REPLACE FUNCTION sqla_rls_harden.refuse_drop_owned() RETURNS event_trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF NOT EXISTS (
       SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper
       UNION ALL
       SELECT FROM pg_database WHERE datname = current_database() AND pg_has_role(datdba, 'USAGE')
       UNION ALL
       SELECT FROM pg_class WHERE relrowsecurity AND pg_has_role(relowner, 'USAGE'))
  THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('DROP OWNED is refused for role %I: it removes roles from policies', current_user),
      HINT = 'Run it as the owner of the tables, or as a superuser.';
  END IF;
END $function$;
DROP EVENT TRIGGER IF EXISTS sqla_rls_refuse_drop_owned;
CREATE EVENT TRIGGER sqla_rls_refuse_drop_owned ON ddl_command_start WHEN TAG IN ('DROP OWNED')
  EXECUTE FUNCTION sqla_rls_harden.refuse_drop_owned();

-- A temporary object can shadow a real one; a function in schema public can shadow one whose arguments fit less
-- well.  A migrating role that doesn't own the database needs GRANT TEMPORARY.
DO $do$BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  IF to_regnamespace('public') IS NOT NULL THEN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  END IF;
END$do$;

-- Large objects: copies of rows that outlive the transaction.
REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;

-- Sessions of other callers: ending them, and reading their statements.
REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_stat_get_activity(integer), pg_stat_get_backend_activity(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer) TO pg_signal_backend;
GRANT EXECUTE ON FUNCTION pg_stat_get_activity(integer), pg_stat_get_backend_activity(integer) TO pg_read_all_stats;

DO $do$
DECLARE
  function regprocedure;
BEGIN
  FOR function IN
    SELECT p.oid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid JOIN pg_proc AS p ON p.oid = d.objid
     WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_stat_statements'
       AND d.classid = 'pg_proc'::regclass AND p.proname = 'pg_stat_statements'
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_read_all_stats', function);
  END LOOP;
END$do$;

-- Connections from within the server.
DO $do$
DECLARE
  function regprocedure;
BEGIN
  FOR function IN
    SELECT d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'dblink' AND d.classid = 'pg_proc'::regclass
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
  END LOOP;
END$do$;

-- Advisory locks that outlive the transaction.  Applications that hold some need a GRANT by name.
REVOKE EXECUTE ON FUNCTION
  pg_advisory_lock(bigint), pg_advisory_lock(integer, integer),
  pg_advisory_lock_shared(bigint), pg_advisory_lock_shared(integer, integer),
  pg_try_advisory_lock(bigint), pg_try_advisory_lock(integer, integer),
  pg_try_advisory_lock_shared(bigint), pg_try_advisory_lock_shared(integer, integer) FROM PUBLIC;
