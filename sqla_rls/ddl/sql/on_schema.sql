-- Grants or revokes privileges on a schema.  If another role owns the schema, a warning has the statement for the
-- owner, unless the grantee holds the privilege already.
DO {tag}
DECLARE
  target     constant text   := {schema};
  privileges constant text[] := {privileges};
  statement  constant text   := {head} || quote_ident(target) || {tail};
BEGIN
  IF {revoke} AND target = 'auth' AND {policies_call_auth} THEN
    RAISE NOTICE 'nothing to do: policies of another project or tenant still call functions of schema auth';
  ELSIF (SELECT bool_and(has_schema_privilege(target, one || ' WITH GRANT OPTION')) FROM unnest(privileges) AS one) THEN
    EXECUTE statement;
  ELSIF {revoke} OR NOT (SELECT bool_and(has_schema_privilege(grantee, target, one))
                           FROM unnest(privileges) AS one, unnest({grantees}) AS grantee) THEN
    RAISE WARNING 'privileges on schema % stay as they are: % may not change them. Have the owner % run: %',
      target, current_user,
      (SELECT pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = target), statement;
  END IF;
END {tag}
