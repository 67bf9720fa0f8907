-- Grants or revokes privileges on a schema.  Another role may own the schema: a role that holds the privilege
-- already needs nothing then, and for any other a warning holds the statement that the owner must run.
DO {tag}
DECLARE
  target     constant text   := {schema};
  privileges constant text[] := {privileges};
  statement  constant text   := {head} || quote_ident(target) || {tail};
BEGIN
  IF (SELECT bool_and(has_schema_privilege(target, one || ' WITH GRANT OPTION')) FROM unnest(privileges) AS one) THEN
    EXECUTE statement;
  ELSIF {revoke} OR NOT (SELECT bool_and(has_schema_privilege(grantee, target, one))
                           FROM unnest(privileges) AS one, unnest({grantees}) AS grantee) THEN
    RAISE WARNING '% may not change privileges on schema %. Have its owner % run: %', current_user, target,
      (SELECT pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = target), statement;
  END IF;
END {tag}
