-- The portable functions of schema auth: the rest of CREATE FUNCTION auth.name().
--
-- PL/pgSQL, whose plan a session keeps: inlined into every statement, the same in SQL takes 40 µs more to
-- plan.  They are read under a path of their own, at whose end a caller's temporary types do no harm.
SELECT d.name, format($template$RETURNS %s
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
  DECLARE
    setting constant text := current_setting('request.jwt.claims', true);
    claims jsonb := 'null';
  BEGIN
    IF %s THEN
      claims := setting;
    END IF;
    RETURN %s;
  END $function$$template$,
         d.returns,
         -- As in the extension, text that isn't JSON counts as no claims.  Before 16 it is an error, since only an
         -- exception block could tell, and those are not allowed in parallel queries.  pg_input_is_valid() takes
         -- 9 µs more than IS JSON, which accepts escapes that jsonb doesn't.
         CASE WHEN current_setting('server_version_num')::int >= 160000
              THEN $$setting IS JSON AND (strpos(setting, chr(92)) = 0 OR pg_input_is_valid(setting, 'jsonb'))$$
              ELSE $$setting <> ''$$ END,
         d.value) AS body
  FROM (
{auth_readers}
  ) AS d
