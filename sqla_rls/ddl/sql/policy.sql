-- Creates or alters a policy, or a view, under settings that give its text one meaning in every session.
--
-- Postgres reads 'now', 'today' and the like only once.  So this creates the object twice, in two time zones that
-- never share a date: an expression that depends on the day or hour then differs both as an instant and on the
-- clock.  A timestamp without time zone differs as an instant only, and one with it on the clock only.
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
      ' would keep the time of its creation: Postgres reads ''now'', ''today'' and the like only once. Write now(),'
      ' CURRENT_DATE or LOCALTIME, which each query reads. If it has no such text, write the time zone into'
      ' each time that has one';
  END IF;
  PERFORM set_config(name, value, true) FROM unnest(names, before) AS setting (name, value);
END {tag}
