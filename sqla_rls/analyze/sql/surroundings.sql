-- What any expression may depend on: operators, casts, types, collations, extensions, settings.
SELECT pg_catalog.jsonb_build_object(
  'operators', (
    SELECT pg_catalog.jsonb_agg(o.oid::pg_catalog.regoperator::pg_catalog.text || ' '
                                || o.oprcode::pg_catalog.regprocedure::pg_catalog.text
                                ORDER BY o.oid::pg_catalog.regoperator::pg_catalog.text)
      FROM pg_catalog.pg_operator AS o WHERE o.oid >= 16384 AND o.oprcode <> 0),
  'casts', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.format_type(k.castsource, NULL) || ' '
                                || pg_catalog.format_type(k.casttarget, NULL) || ' '
                                || k.castfunc::pg_catalog.regprocedure::pg_catalog.text
                                ORDER BY pg_catalog.format_type(k.castsource, NULL),
                                         pg_catalog.format_type(k.casttarget, NULL))
      FROM pg_catalog.pg_cast AS k WHERE k.oid >= 16384),
  'domains', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.format_type(t.oid, NULL) || ' '
                                || pg_catalog.format_type(t.typbasetype, t.typtypmod) || ' '
                                || coalesce((SELECT pg_catalog.string_agg(
                                                      pg_catalog.pg_get_constraintdef(k.oid) || coalesce((
                                                        SELECT pg_catalog.string_agg(f.prosrc, ' ' ORDER BY f.proname)
                                                          FROM pg_catalog.pg_depend AS u
                                                          JOIN pg_catalog.pg_proc AS f ON f.oid = u.refobjid
                                                         WHERE u.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                                                           AND u.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                                                           AND u.objid = k.oid), ''), ' ' ORDER BY k.conname)
                                               FROM pg_catalog.pg_constraint AS k WHERE k.contypid = t.oid), '')
                                ORDER BY pg_catalog.format_type(t.oid, NULL))
      FROM pg_catalog.pg_type AS t WHERE t.oid >= 16384 AND t.typtype = 'd'),
  'collations', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.array_to_string(ARRAY[
             pg_catalog.format('%I.%I', n.nspname, l.collname), l.collprovider::pg_catalog.text,
             l.collisdeterministic::pg_catalog.text, l.collcollate, l.collctype,
             -- Each version of Postgres has names of its own.
             coalesce(pg_catalog.to_jsonb(l) ->> 'colllocale', pg_catalog.to_jsonb(l) ->> 'colliculocale'),
             pg_catalog.to_jsonb(l) ->> 'collicurules'], ' ', '-')
             ORDER BY n.nspname, l.collname, l.collencoding)
      FROM pg_catalog.pg_collation AS l JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace
     WHERE l.oid >= 16384),
  'text search', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.format('%I.%I %s %s %s', n.nspname, g.cfgname, g.cfgparser,
                                                  m.maptokentype, d.dictname || coalesce(d.dictinitoption, ''))
                                ORDER BY n.nspname, g.cfgname, m.maptokentype, m.mapseqno)
      FROM pg_catalog.pg_ts_config AS g
      JOIN pg_catalog.pg_namespace AS n ON n.oid = g.cfgnamespace
      LEFT JOIN pg_catalog.pg_ts_config_map AS m ON m.mapcfg = g.oid
      LEFT JOIN pg_catalog.pg_ts_dict AS d ON d.oid = m.mapdict
     WHERE g.oid >= 16384),
  'event triggers', (
    SELECT pg_catalog.jsonb_agg(e.evtname || ' ' || e.evtevent || ' ' || e.evtfoid::pg_catalog.regproc::pg_catalog.text
                                ORDER BY e.evtname)
      FROM pg_catalog.pg_event_trigger AS e),
  'extensions', (
    SELECT pg_catalog.jsonb_agg(x.extname ORDER BY x.extname)
      FROM pg_catalog.pg_extension AS x WHERE x.extname <> 'pg_session_jwt'),
  'memberships of the roles of Postgres', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.pg_get_userbyid(m.member) || ' ' || pg_catalog.pg_get_userbyid(m.roleid)
                                ORDER BY pg_catalog.pg_get_userbyid(m.member), pg_catalog.pg_get_userbyid(m.roleid))
      FROM pg_catalog.pg_auth_members AS m
     WHERE m.member < 16384 AND m.roleid >= 16384),
  'settings', (
    SELECT pg_catalog.jsonb_agg(s.setconfig ORDER BY s.setconfig::pg_catalog.text)
      FROM pg_catalog.pg_db_role_setting AS s
     WHERE s.setrole = 0 AND s.setdatabase IN (
       0, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())))
)::pg_catalog.text
