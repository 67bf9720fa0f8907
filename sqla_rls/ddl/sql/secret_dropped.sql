  IF obj_description(to_regnamespace('sqla_rls_secret'), 'pg_namespace') = made_by THEN
    DROP FUNCTION IF EXISTS sqla_rls_secret.rotate_signing_key(interval);
    DROP TABLE IF EXISTS sqla_rls_secret.signing_key;
    DROP SCHEMA sqla_rls_secret;
  END IF;
  IF borrowed THEN
    EXECUTE format('REVOKE sqla_rls_keyholder FROM %I', current_user);
  END IF;
  PERFORM set_config('search_path', path, true);
