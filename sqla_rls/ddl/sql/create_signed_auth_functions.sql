-- The functions of schema auth that verify the caller, their key, and the function that makes keys.  Until there is
-- a key, they are in claims mode, as those of create_auth_functions.sql, which they replace.
--
-- The key, and the functions that read it, belong to sqla_rls_keyholder, a role that owns nothing else.  If there
-- can't be such a role, they belong to the current role, which may make keys in either case.  A second run repairs
-- the functions, and keeps the key.
--
-- One block is atomic, and runs the same way from a script.
DO $sqla_rls$
DECLARE
  made_by   constant text := {made_by};
  path      constant text := current_setting('search_path');
  version   constant int  := current_setting('server_version_num');
  keyholder text          := 'sqla_rls_keyholder';
  borrowed  boolean       := false;
  owner     text;  -- of the schema, before
  others    text;
  reason    text;
  made      record;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_session_jwt') THEN
    RAISE EXCEPTION USING ERRCODE = 'RLS05', MESSAGE =
      'signed functions can''t be created: the extension pg_session_jwt owns schema auth, and verifies callers itself.'
      ' Leave out signed=True, or run DROP EXTENSION pg_session_jwt first';
  END IF;
  SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.proname) INTO others
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN (
{signed_functions}
    ) AS ours ON ours.schema = n.nspname AND ours.name = p.proname
   WHERE n.nspname = 'auth' AND p.pronargs = 0 AND p.oid NOT IN (SELECT known.oid FROM (
{made_auth_functions}
    ) AS known);
  IF others IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'RLS05', MESSAGE = format(
      'signed functions can''t be created: another program created %s, which wouldn''t verify callers. Drop those'
      ' functions first, or leave out signed=True', others);
  END IF;
  SELECT pg_get_userbyid(nspowner) INTO owner
    FROM pg_namespace WHERE nspname = 'sqla_rls_secret';
  IF owner NOT IN (SELECT unnest(ARRAY[keyholder, current_user, pg_get_userbyid(datdba)])
                     FROM pg_database WHERE datname = current_database()) THEN
    RAISE EXCEPTION USING ERRCODE = 'RLS05', MESSAGE = format(
      'signed functions can''t be created: schema sqla_rls_secret belongs to %I, which could read the key. Drop that'
      ' schema first', owner);
  END IF;

  IF to_regnamespace('auth') IS NULL THEN
    CREATE SCHEMA auth;
    EXECUTE format('COMMENT ON SCHEMA auth IS %L', made_by);
  END IF;

  BEGIN
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sqla_rls_keyholder') THEN
        CREATE ROLE sqla_rls_keyholder NOLOGIN NOINHERIT;
        EXECUTE format('COMMENT ON ROLE sqla_rls_keyholder IS %L', made_by);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- Roles belong to the cluster: another database has made it at the same moment.
    END;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sqla_rls_keyholder' AND (rolcanlogin OR rolsuper)) THEN
      RAISE insufficient_privilege USING MESSAGE = 'role sqla_rls_keyholder may log in, or is a superuser';
    END IF;
{keyholder_borrowed}
    IF NOT pg_has_role('sqla_rls_keyholder', 'USAGE') THEN
      RAISE insufficient_privilege USING MESSAGE = format('role %I doesn''t inherit', current_user);
    END IF;
    GRANT CREATE ON SCHEMA auth TO sqla_rls_keyholder;
    IF NOT has_schema_privilege('sqla_rls_keyholder', 'auth', 'CREATE') THEN
      RAISE insufficient_privilege USING MESSAGE = 'permission denied for schema auth';
    END IF;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING USING
      MESSAGE = format('%I and its members can sign as any caller: they can read the signing key, which'
                       ' sqla_rls_keyholder can''t own (%s)', current_user, SQLERRM),
      HINT = 'Never let an application log in as such a role. Or have a superuser run this, too.';
    keyholder := current_user;
    borrowed := false;
  END;

  IF owner IS NULL THEN
    CREATE SCHEMA sqla_rls_secret;
    EXECUTE format('COMMENT ON SCHEMA sqla_rls_secret IS %L', made_by);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_class WHERE relname = 'signing_key'
                    AND relnamespace = to_regnamespace('sqla_rls_secret')) THEN
    CREATE TABLE sqla_rls_secret.signing_key (
      slot         smallint    PRIMARY KEY CHECK (slot IN (0, 1)),  -- 0 is current, 1 previous: never three
      inner_pad    bytea       NOT NULL,  -- the HMAC key, 64 bytes long, xor 0x36
      outer_pad    bytea       NOT NULL,  -- xor 0x5c
      accept_until timestamptz NOT NULL DEFAULT 'infinity');
    -- Statistics would be copies of the key, which dumps may hold.
    ALTER TABLE sqla_rls_secret.signing_key
      ALTER inner_pad SET STORAGE PLAIN, ALTER outer_pad SET STORAGE PLAIN,
      ALTER inner_pad SET STATISTICS 0, ALTER outer_pad SET STATISTICS 0;
    -- Functions that verify had a key to read: without it, they accept no caller.
    IF EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0 AND p.prosecdef
                  AND strpos(p.prosrc, 'sqla_rls_secret.signing_key') > 0) THEN
      COMMENT ON TABLE sqla_rls_secret.signing_key IS 'callers are verified';
    END IF;
  END IF;
  FOR made IN
{signed_functions}
  LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION %I.%I(%s) %s',
                   made.schema, made.name, made.arguments, made.body);
    IF made.schema = 'auth' THEN
      IF obj_description(to_regprocedure(format('auth.%I()', made.name)), 'pg_proc') IS NULL THEN
        EXECUTE format('COMMENT ON FUNCTION auth.%I() IS %L', made.name, made_by);
      END IF;
      EXECUTE format('GRANT EXECUTE ON FUNCTION auth.%I() TO PUBLIC', made.name);
    END IF;
  END LOOP;

  -- ALTER DEFAULT PRIVILEGES may have granted privileges on the new objects.
  FOR made IN
    SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
      FROM (SELECT 'SCHEMA sqla_rls_secret', nspowner, nspacl FROM pg_namespace WHERE nspname = 'sqla_rls_secret'
            UNION ALL
            SELECT 'TABLE sqla_rls_secret.signing_key', relowner, relacl FROM pg_class
             WHERE oid = 'sqla_rls_secret.signing_key'::regclass
            UNION ALL
            SELECT 'FUNCTION sqla_rls_secret.rotate_signing_key', proowner, coalesce(proacl, acldefault('f', proowner))
              FROM pg_proc WHERE oid = 'sqla_rls_secret.rotate_signing_key'::regproc) AS o (name, holder, acl),
           aclexplode(o.acl) AS a
     WHERE a.grantee <> o.holder AND (owner IS DISTINCT FROM keyholder OR a.grantee = 0)
  LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %s', made.name, made.grantee);
  END LOOP;

  EXECUTE format('GRANT CREATE ON SCHEMA sqla_rls_secret TO %I', keyholder);
  EXECUTE format('ALTER FUNCTION auth.session() OWNER TO %I', keyholder);
  EXECUTE format('ALTER TABLE sqla_rls_secret.signing_key OWNER TO %I', keyholder);
  EXECUTE format('ALTER FUNCTION sqla_rls_secret.rotate_signing_key(interval) OWNER TO %I', keyholder);
  EXECUTE format('ALTER SCHEMA sqla_rls_secret OWNER TO %I', keyholder);
  IF keyholder <> current_user THEN
    EXECUTE format('GRANT USAGE ON SCHEMA sqla_rls_secret TO %I', current_user);
    EXECUTE format('GRANT EXECUTE ON FUNCTION sqla_rls_secret.rotate_signing_key(interval) TO %I', current_user);
    REVOKE CREATE ON SCHEMA auth FROM sqla_rls_keyholder;
  END IF;
  IF borrowed THEN
    EXECUTE format('REVOKE sqla_rls_keyholder FROM %I', current_user);
  END IF;
  PERFORM set_config('search_path', path, true);
EXCEPTION WHEN insufficient_privilege THEN
  GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
  RAISE EXCEPTION USING ERRCODE = 'RLS05', MESSAGE = concat_ws(' ',
    format('signed functions can''t be created: %s.', SQLERRM), nullif(reason, ''),
    'Have the owner of the existing functions, or a superuser, run the output of sqla-rls auth-functions --signed');
END $sqla_rls$
