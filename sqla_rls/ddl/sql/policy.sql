-- Makes or alters a policy, or a view, under settings that give its text one meaning, whatever those of the session.
--
-- 'now', 'today' and the like are read once, when it is made.  So it is made twice, in two time zones
-- that never share a date: what depends on the day or hour then differs both as an instant and on the clock.
-- A timestamp without time zone differs as an instant only, and one with it on the clock only.
DO {tag}
DECLARE
  names   constant text[] := {names};
  pins    constant text[] := {pins};
  before  constant text[] := ARRAY(SELECT current_setting(name) FROM unnest(names) AS name);
  zones   constant text[] := ARRAY[CASE WHEN extract(hour FROM now() AT TIME ZONE 'UTC') < 10
                                        THEN '<here>12' ELSE '<here>-14' END, '<here>0'];
  made    constant text   := {statement};
  undo    constant text   := {undo};
  stored  constant text   := {stored};
  reading text;
  clock   text[];
  instant text[];
BEGIN
  FOR pass IN 1 .. 2 LOOP
    IF pass = 2 AND undo IS NOT NULL THEN
      EXECUTE undo;
    END IF;
    PERFORM set_config(name, value, true) FROM unnest(names, pins) AS setting (name, value);
    PERFORM set_config('TimeZone', zones[pass], true);
    EXECUTE made;
    PERFORM set_config('DateStyle', 'Postgres, MDY', true);
    EXECUTE stored INTO STRICT reading;
    clock := clock || reading;
    PERFORM set_config('DateStyle', 'ISO, MDY', true), set_config('TimeZone', 'UTC', true);
    EXECUTE stored INTO STRICT reading;
    instant := instant || reading;
  END LOOP;
  IF strpos(instant[2], now()::time::text) > 0 OR (instant[1] <> instant[2] AND clock[1] <> clock[2]) THEN
    RAISE EXCEPTION USING ERRCODE = 'RLS03', MESSAGE = {subject} ||
      ' would hold the moment at which it is made: ''now'', ''today'' and the like are read once, when it is made.'
      ' Write now(), CURRENT_DATE or LOCALTIME, which every query reads anew. If there is nothing of the kind in it,'
      ' write the time zone into every time that has one';
  END IF;
  PERFORM set_config(name, value, true) FROM unnest(names, before) AS setting (name, value);
END {tag}
