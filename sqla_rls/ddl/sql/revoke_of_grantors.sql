-- Revokes privileges that roles other than the owner have granted.  Only a role itself can revoke what it granted, and
-- the owner only by revoking its grant option with CASCADE.  The owner then grants the other lost privileges again.
DO {tag}
DECLARE
  grantors   constant oid[]  := ARRAY(SELECT to_regrole(quote_ident(role))::oid FROM unnest({grantors}) AS role);
  grantees   constant oid[]  := ARRAY(SELECT CASE WHEN role = 'public' THEN 0 ELSE to_regrole(quote_ident(role))::oid END
                                        FROM unnest({grantees}) AS role);
  query      constant text   := $held$
    SELECT jsonb_agg(jsonb_build_object('attname', p.attname, 'owner', p.owner, 'privilege', a.privilege_type,
                                        'grantor', a.grantor, 'grantee', a.grantee, 'option', a.is_grantable))
      FROM (SELECT NULL::name AS attname, relowner AS owner, relacl AS acl FROM pg_catalog.pg_class
             WHERE $2 IN ('TABLE', 'SEQUENCE') AND oid = $1 AND $3 IS NULL
            UNION ALL
            SELECT a.attname, c.relowner, a.attacl
              FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
             WHERE $2 = 'TABLE' AND c.oid = $1 AND NOT a.attisdropped AND (a.attname = ANY ($3)) IS NOT FALSE
            UNION ALL
            SELECT NULL, proowner, proacl FROM pg_catalog.pg_proc WHERE $2 = 'FUNCTION' AND oid = $1
            UNION ALL
            SELECT NULL, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE $2 = 'SCHEMA' AND oid = $1
           ) AS p (attname, owner, acl), pg_catalog.aclexplode(p.acl) AS a
     WHERE a.grantee <> p.owner AND (a.privilege_type = ANY ($4) OR 'ALL' = ANY ($4))
  $held$;
  relation   constant regclass := {relation};
  targets    oid[] := {targets};
  target     oid;
  name       text;
  named      text;
  owner_name text;
  before     jsonb;
  after      jsonb;
  statements text[];
  statement  text;
BEGIN
  FOREACH name IN ARRAY {sequence_columns} LOOP
    targets := targets || ARRAY(SELECT s.sequence FROM ({sequences_of_column}) AS s WHERE s.is_owned OR NOT s.any_owned);
  END LOOP;
  FOREACH target IN ARRAY targets LOOP
    CONTINUE WHEN {object_type} = 'SCHEMA' AND target = pg_catalog.to_regnamespace('auth') AND {policies_call_auth};
    named := CASE {object_type} WHEN 'FUNCTION' THEN target::regprocedure::text
                                WHEN 'SCHEMA' THEN target::regnamespace::text ELSE target::regclass::text END;
    EXECUTE query INTO before USING target, {object_type}, {columns}, {privileges};
    -- The roles that have granted the privileges, those that have given them the option, and the grantees.
    WITH RECURSIVE held AS (
      SELECT * FROM jsonb_to_recordset(before)
                      AS h (attname text, owner oid, privilege text, grantor oid, grantee oid, option boolean)
    ), revoked AS (
      SELECT attname, privilege, grantor, owner FROM held
       WHERE grantor <> owner AND grantor = ANY (grantors) AND grantee = ANY (grantees)
    ), through AS (
      SELECT attname, privilege, grantor AS role, owner FROM revoked
      UNION
      SELECT h.attname, h.privilege, h.grantor, h.owner
        FROM held AS h JOIN revoked AS r ON (h.attname, h.privilege) IS NOT DISTINCT FROM (r.attname, r.privilege)
       WHERE h.grantor = ANY (grantees)
      UNION
      SELECT h.attname, h.privilege, h.grantor, h.owner
        FROM through AS t JOIN held AS h ON (h.attname, h.privilege) IS NOT DISTINCT FROM (t.attname, t.privilege)
       WHERE h.grantee = t.role AND h.option AND h.grantor <> h.owner
    )
    SELECT array_agg(format(s.form, t.privilege || coalesce(' (' || quote_ident(t.attname) || ')', ''), named,
                            pg_get_userbyid(t.role)) ORDER BY s.place),
           min(pg_get_userbyid(t.owner)::text)
      INTO statements, owner_name
      FROM through AS t, (VALUES (1, 'GRANT %s ON {kind} %s TO %I WITH GRANT OPTION'),
                                 (2, 'REVOKE %s ON {kind} %s FROM %I CASCADE')) AS s (place, form);
    CONTINUE WHEN statements IS NULL;
    IF NOT pg_has_role(owner_name, 'USAGE') THEN
      RAISE WARNING 'privileges on % stay as they are: role % may not change what % granted. Have the owner % run this',
        named, current_user, array_to_string({grantors}, ', '), owner_name;
      CONTINUE;
    END IF;
    FOREACH statement IN ARRAY statements LOOP
      EXECUTE statement;
    END LOOP;
    EXECUTE query INTO after USING target, {object_type}, {columns}, {privileges};
    FOR statement IN
      WITH RECURSIVE held AS (
        SELECT * FROM jsonb_to_recordset(before)
                        AS h (attname text, owner oid, privilege text, grantor oid, grantee oid, option boolean)
      ), still AS (
        SELECT * FROM jsonb_to_recordset(after)
                        AS h (attname text, owner oid, privilege text, grantor oid, grantee oid, option boolean)
      ), gone (attname, privilege, role) AS (
        SELECT attname, privilege, grantor FROM held WHERE {cascade} AND grantor = ANY (grantees)
        UNION
        SELECT h.attname, h.privilege, h.grantee
          FROM gone AS g JOIN held AS h ON (h.attname, h.privilege) IS NOT DISTINCT FROM (g.attname, g.privilege)
         WHERE h.grantor = g.role
      )
      SELECT DISTINCT format('GRANT %s ON {kind} %s TO %s%s',
                             h.privilege || coalesce(' (' || quote_ident(h.attname) || ')', ''), named,
                             CASE WHEN h.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(h.grantee)) END,
                             CASE WHEN h.option THEN ' WITH GRANT OPTION' END)
        FROM held AS h
       WHERE NOT (h.grantee = ANY (grantees) AND (h.grantor = h.owner OR h.grantor = ANY (grantors)))
         AND NOT EXISTS (SELECT FROM gone AS g
                          WHERE (g.attname, g.privilege, g.role)
                                IS NOT DISTINCT FROM (h.attname, h.privilege, h.grantor))
         AND NOT EXISTS (SELECT FROM still AS s
                          WHERE (s.attname, s.privilege, s.grantee)
                                IS NOT DISTINCT FROM (h.attname, h.privilege, h.grantee)
                            AND s.grantor IN (h.owner, h.grantor) AND s.option >= h.option)
    LOOP
      EXECUTE statement;
    END LOOP;
  END LOOP;
END {tag}
