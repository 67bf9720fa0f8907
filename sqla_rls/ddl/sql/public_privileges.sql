-- Revokes privileges from PUBLIC, or grants them again: TEMPORARY on the database, and CREATE on schema public
-- if it exists.  A role can revoke only its own grants, and for others Postgres may only warn: the second look
-- finds those.
DO $sqla_rls$
DECLARE
  found record;
  hints text[];
BEGIN
  FOR look IN 1 .. 2 LOOP
    FOR found IN
      SELECT pg_catalog.format('{verb} %s ON %s {preposition} PUBLIC', o.privilege, o.name) AS statement,
             pg_catalog.pg_get_userbyid(
               CASE WHEN g.grantor = 'pg_database_owner'::regrole THEN d.datdba ELSE g.grantor END) AS grantor
        FROM pg_catalog.pg_database AS d
        LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'public',
             LATERAL (VALUES
               ('TEMPORARY', pg_catalog.format('DATABASE %I', d.datname), d.datdba,
                coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))),
               ('CREATE', 'SCHEMA public', n.nspowner, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)))
             ) AS o (privilege, name, owner, acl)
        LEFT JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a ON a.grantee = 0 AND a.privilege_type = o.privilege,
             LATERAL (SELECT coalesce(a.grantor, o.owner)) AS g (grantor)
       WHERE d.datname = pg_catalog.current_database() AND o.owner IS NOT NULL
         AND o.privilege = ANY (ARRAY[{privileges}]::text[]) AND (a.grantor IS NOT NULL) = {held}
    LOOP
      IF look = 2 THEN
        hints := hints || pg_catalog.format('Have %I run: %s', found.grantor, found.statement);
      ELSE
        BEGIN
          EXECUTE found.statement;
        EXCEPTION WHEN insufficient_privilege THEN
          NULL;
        END;
      END IF;
    END LOOP;
  END LOOP;
  IF hints IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'RLS06', MESSAGE = pg_catalog.format(
      'the privileges of PUBLIC can''t be changed: %I may not change all of them, so nothing was done. %s',
      current_user, pg_catalog.array_to_string(hints, '. '));
  END IF;
END $sqla_rls$
