-- The query of a function that runs with the rights of its owner, as Postgres spells it with every name qualified.
-- The body is that of a function for a moment, without names of arguments, which is never run; an error undoes it.
-- A function has no row if a query in its place might have other results: if it is volatile or strict, if it has
-- settings but search_path, or if its rows have several columns or are arrays.
CREATE FUNCTION pg_temp.sqla_rls_definers(signatures text[], bodies text[])
RETURNS TABLE (place int, spelling text, types text[], defaults text[], result text, result_collation text,
               returns_set boolean)
LANGUAGE plpgsql AS $describing$
DECLARE
  f record;
  search_path text;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog', true);
  FOR f IN
    SELECT a.place, p.oid, coalesce(a.body, p.prosrc) AS body, p.proretset, p.proconfig,
           pg_get_function_result(p.oid) AS result, format_type(p.prorettype, NULL) AS type,
           (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation AS l
              JOIN pg_namespace AS n ON n.oid = l.collnamespace WHERE l.oid = t.typcollation) AS result_collation,
           ARRAY(SELECT format_type(t.type, NULL)
                   FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS t (type, place) ORDER BY t.place) AS types,
           ARRAY(SELECT pg_get_function_arg_default(p.oid, t.place::int)
                   FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS t (type, place) ORDER BY t.place) AS defaults
      FROM unnest(signatures, bodies) WITH ORDINALITY AS a (signature, body, place)
      JOIN pg_proc AS p ON p.oid = to_regprocedure(a.signature)
      JOIN pg_language AS l ON l.oid = p.prolang
      JOIN pg_type AS t ON t.oid = p.prorettype
     WHERE l.lanname = 'sql' AND p.prosecdef AND p.prokind = 'f' AND p.provolatile <> 'v' AND NOT p.proisstrict
       AND p.prosqlbody IS NULL AND t.typtype IN ('b', 'd', 'e') AND t.typcategory <> 'A'
       AND NOT coalesce(p.proargmodes && '{o,b,t}'::"char"[], false) AND cardinality(p.proconfig) = 1 AND p.proconfig[1] ^@ 'search_path='
  LOOP
    search_path := substr(f.proconfig[1], 13);
    place := f.place;
    types := f.types;
    defaults := f.defaults;
    result := f.type;
    result_collation := f.result_collation;
    returns_set := f.proretset;
    spelling := NULL;
    BEGIN
      PERFORM set_config('search_path', search_path, true);
      EXECUTE format(E'CREATE FUNCTION pg_temp.sqla_rls_body(%s) RETURNS %s LANGUAGE sql BEGIN ATOMIC %s\n; END',
                     array_to_string(f.types, ', '), f.result, f.body);
      PERFORM set_config('search_path', 'pg_catalog', true);
      spelling := (SELECT pg_get_function_sqlbody(p.oid) FROM pg_proc AS p
                    WHERE p.proname = 'sqla_rls_body' AND p.pronamespace = pg_my_temp_schema());
      RAISE EXCEPTION USING ERRCODE = 'RLS02';
    EXCEPTION
      WHEN SQLSTATE 'RLS02' THEN
        RETURN NEXT;
      WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
        RAISE;
      WHEN OTHERS THEN
        NULL;
    END;
  END LOOP;
END $describing$
