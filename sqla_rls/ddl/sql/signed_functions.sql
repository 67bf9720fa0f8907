-- The rest of CREATE FUNCTION schema.name(arguments), for the functions that verify callers.
--
-- Rules kept below
--   * search_path ends in pg_temp.  One without it, '' included, is searched in pg_temp first for types and
--     tables: a temporary domain called "jsonb" then runs its CHECK as the key's holder.
--   * The key is never a variable or a parameter, nor in an error: auto_explain logs those.
--   * Nothing of a token is parsed before its signature is right.
--   * In each transaction, an expression of PL/pgSQL takes 0.3 µs to start, and 0.4 to 0.6 µs more for each function
--     and operator in it.  AND, IS NULL and CURRENT_TIMESTAMP take less.  What only errors need is evaluated on their
--     paths.
--   * In the query that reads the key, few functions have arguments without a column.  If many do, Postgres takes a
--     plan for the present values to be cheaper, and plans in each call, which takes 45 µs.
--   * No regular expression with counts over the whole token: that takes 18 µs.  Nor its length(), where its
--     octet_length() does.
--   * No backslash in a literal: standard_conforming_strings belongs to the caller.
--   * No exception block: it starts a subtransaction, which parallel mode may refuse.
--   * PARALLEL RESTRICTED: pg_backend_pid() in a worker is the worker's.  As an InitPlan,
--     (SELECT auth.user_id()), they let the rest of a query run in parallel.
SELECT 'auth' AS schema, d.name, '' AS arguments, format($template$RETURNS %s
  LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
  DECLARE
    claims constant jsonb := auth.session();
  BEGIN
    RETURN %s;
  END $function$$template$, d.returns, d.value) AS body
  FROM (
{auth_readers}
  ) AS d
 WHERE d.name <> 'session'
UNION ALL
SELECT 'auth', 'session', '', format($template$RETURNS jsonb
  LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
  DECLARE
    token     constant text := coalesce(current_setting('pg_session_jwt.jwt', true), '');
    payload   constant text := split_part(token, '.', 2);
    message   constant text := 'eyJhbGciOiJIUzI1NiIsInR5cCI6InJscytqd3QifQ.' || payload;
    signature constant text := split_part(token, '.', 3);
    setting   text;
    claims    jsonb;
    problem   text[];
  BEGIN
    -- header.payload.signature in base64url.  The header is exactly {"alg":"HS256","typ":"rls+jwt"}: a token
    -- can't choose its algorithm, and a token that the same key signed for another purpose isn't accepted
    -- (RFC 8725, 3.1 and 3.11).
    IF token = message || '.' || signature AND token !~ '[^A-Za-z0-9_.-]' COLLATE "C" THEN
      -- HMAC (RFC 2104).  Both sides are hashed under the key once more before the comparison: its time then tells
      -- nothing about the right signature.  The comparison of the encoded text accepts only one spelling.
      PERFORM FROM sqla_rls_secret.signing_key AS k
        WHERE k.accept_until > current_timestamp
          AND sha256(k.outer_pad || convert_to(signature || '=', 'UTF8'))
            = sha256(k.outer_pad || convert_to(replace(replace(encode(
                sha256(k.outer_pad || sha256(k.inner_pad || convert_to(message, 'UTF8'))), 'base64'),
                '+', '-'), '/', '_'), 'UTF8'));
      IF FOUND THEN
        -- Not translate(), which takes 3 µs longer.
        claims := convert_from(decode(replace(replace(payload, '-', '+'), '_', '/')
                                      || repeat('=', octet_length(payload) * 3 %% 4), 'base64'), 'UTF8');
        -- What nearly every token passes; the rest of the function looks at the others.  Two numbers have numbers
        -- alone between them, the texts of integers have no point, and those of strings alone have quotes.
        IF claims -> 'exp' >= to_jsonb(extract(epoch FROM current_timestamp)) AND claims -> 'exp' <= '999999999999999'
           AND claims ->> 'exp' NOT LIKE '%%.%%' AND NOT claims ? 'nbf'
           AND ((claims -> 'sub')::text LIKE '"%%') IS NOT FALSE
           AND ((claims -> 'pid')::text = pg_backend_pid()::text) IS NOT FALSE THEN
          RETURN claims;
        END IF;
      END IF;
    END IF;

    IF claims IS NOT NULL THEN
      NULL;  -- Its signature is right.
    ELSIF NOT EXISTS (SELECT FROM sqla_rls_secret.signing_key) THEN
      setting := current_setting('request.jwt.claims', true);
      claims := 'null';
      IF token <> ''
         OR setting <> '' AND obj_description('sqla_rls_secret.signing_key'::regclass, 'pg_class') <> '' THEN
        RAISE EXCEPTION USING ERRCODE = '02000', SCHEMA = 'sqla_rls_secret', CONSTRAINT = 'signing_key',
          MESSAGE = 'there is no key to verify the JWT with',
          HINT = 'The database has no signing key yet, or was restored without it. Make one with'
                 ' "sqla-rls rotate-key", and give it to the application.';
      ELSIF %s THEN
        claims := setting;
      END IF;
      RETURN claims;
    ELSIF token = '' THEN
      -- A person whom nobody signed for isn't nobody: the application has no key.
      IF nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' <> '' THEN
        RAISE EXCEPTION USING ERRCODE = '28000', SCHEMA = 'sqla_rls_secret', CONSTRAINT = 'signing_key',
          MESSAGE = 'the caller is not signed',
          HINT = 'The database accepts signed callers only. Give the application the key that "sqla-rls rotate-key"'
                 ' printed.';
      END IF;
      RETURN 'null'::jsonb;
    ELSIF left(token, 43) <> 'eyJhbGciOiJIUzI1NiIsInR5cCI6InJscytqd3QifQ.'
       OR octet_length(token) <> 43 + octet_length(payload) + 1 + 43 OR token ~ '[^A-Za-z0-9_.-]' COLLATE "C" THEN
      RAISE EXCEPTION USING ERRCODE = '42804', MESSAGE = 'invalid JWT encoding',
        HINT = 'Sign it with HS256, with exactly the header {"alg":"HS256","typ":"rls+jwt"}.';
    ELSE
      RAISE EXCEPTION USING ERRCODE = '23514', SCHEMA = 'sqla_rls_secret', CONSTRAINT = 'signing_key',
        MESSAGE = 'invalid JWT signature',
        HINT = 'Unless the token is forged, the application has another key than the database. Give it the key'
               ' that "sqla-rls rotate-key" printed last, or make a new one.';
    END IF;

    -- One expression: several take as long to start as all that is in them.
    problem := CASE
      WHEN jsonb_typeof(claims) <> 'object' THEN ARRAY['42804', 'could not parse JWT component']
      -- Required, unlike in the extension: without a rising jti, only it ends a stolen token.
      WHEN jsonb_typeof(claims -> 'exp') IS DISTINCT FROM 'number'
           OR (claims -> 'exp')::numeric NOT BETWEEN 0 AND 999999999999999 OR scale((claims -> 'exp')::numeric) <> 0
        THEN ARRAY['42804', '''exp'' (Expiration) must be an integer representing seconds since unix epoch']
      WHEN jsonb_typeof(claims -> 'nbf') <> 'number'
           OR (claims -> 'nbf')::numeric NOT BETWEEN 0 AND 999999999999999 OR scale((claims -> 'nbf')::numeric) <> 0
        THEN ARRAY['42804', '''nbf'' (Not Before) must be an integer representing seconds since unix epoch']
      WHEN jsonb_typeof(claims -> 'sub') <> 'string'
        THEN ARRAY['42804', 'invalid subject claim in the JWT']
      -- now() is the start of the transaction: a token that is valid then is valid to its end.  The extension has
      -- 60 seconds of leeway, too.
      WHEN (claims -> 'exp')::numeric < extract(epoch FROM now()) - 60
        THEN ARRAY['23514', 'Token used after it has expired']
      WHEN (claims -> 'nbf')::numeric > extract(epoch FROM now()) + 60
        THEN ARRAY['23514', 'Token used before it is ready']
      WHEN claims -> 'pid' <> to_jsonb(pg_backend_pid())
        THEN ARRAY['23514', 'Token belongs to another connection']
    END;
    IF problem IS NOT NULL THEN
      RAISE EXCEPTION USING ERRCODE = problem[1], MESSAGE = problem[2];
    END IF;
    RETURN claims;
  END $function$$template$,
         CASE WHEN current_setting('server_version_num')::int >= 160000
              THEN $$setting IS JSON AND (strpos(setting, chr(92)) = 0 OR pg_input_is_valid(setting, 'jsonb'))$$
              ELSE $$setting <> ''$$ END)
UNION ALL
-- Statements without parameters make the key and read it back, so that no log shows it.
SELECT 'sqla_rls_secret', 'rotate_signing_key', 'grace interval', $template$RETURNS text
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
  BEGIN
    -- The error of a constraint would quote the row, and with it the key.
    IF grace IS NULL OR NOT isfinite(now() + grace) OR grace < '0' THEN
      RAISE EXCEPTION USING ERRCODE = '22023', 
        MESSAGE = 'the key can''t be rotated: grace is negative, infinite or NULL. Give an interval of 0 or more';
    END IF;
    LOCK TABLE sqla_rls_secret.signing_key IN SHARE ROW EXCLUSIVE MODE;
    -- A dump without the key still has the comment: it ends claims mode.
    COMMENT ON TABLE sqla_rls_secret.signing_key IS 'callers are verified';
    DELETE FROM sqla_rls_secret.signing_key WHERE slot = 1;
    UPDATE sqla_rls_secret.signing_key SET slot = 1, accept_until = now() + grace;
    WITH fresh AS MATERIALIZED (  -- three version 4 UUIDs: 366 bits of pg_strong_random()
      SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
                    || uuid_send(gen_random_uuid())) AS key)
    INSERT INTO sqla_rls_secret.signing_key (slot, inner_pad, outer_pad)
    SELECT 0,
           decode(string_agg(lpad(to_hex(byte # 54), 2, '0'), '' ORDER BY i), 'hex'),
           decode(string_agg(lpad(to_hex(byte # 92), 2, '0'), '' ORDER BY i), 'hex')
      FROM (SELECT i, CASE WHEN i < 32 THEN get_byte(key, i) ELSE 0 END AS byte
              FROM fresh, generate_series(0, 63) AS i) AS block;
    RETURN (
      SELECT translate(encode(decode(string_agg(lpad(to_hex(get_byte(inner_pad, i) # 54), 2, '0'),
                                                '' ORDER BY i), 'hex'), 'base64'), '+/=', '-_')
        FROM sqla_rls_secret.signing_key, generate_series(0, 31) AS i
       WHERE slot = 0);
  END $function$$template$
