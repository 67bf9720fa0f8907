-- Until something was granted or revoked everywhere, Postgres' own defaults are in force.
WITH kind (letter, acl_letter, object_type) AS (
  VALUES ('r'::"char", 'r'::"char", 'TABLES'), ('S', 's', 'SEQUENCES'), ('f', 'f', 'FUNCTIONS'),
         ('T', 'T', 'TYPES'), ('n', 'n', 'SCHEMAS')
), me AS (
  SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user
), entry AS (
  SELECT k.object_type, d.defaclnamespace AS namespace, d.defaclacl AS acl, me.oid AS me
    FROM me JOIN pg_catalog.pg_default_acl AS d ON d.defaclrole = me.oid
    JOIN kind AS k ON k.letter = d.defaclobjtype
  UNION ALL
  SELECT k.object_type, 0, pg_catalog.acldefault(k.acl_letter, me.oid), me.oid
    FROM kind AS k, me
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl AS d
                      WHERE d.defaclrole = me.oid AND d.defaclobjtype = k.letter AND d.defaclnamespace = 0)
)
SELECT e.object_type, n.nspname, a.privilege_type,
       CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee
  FROM entry AS e LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = e.namespace,
       pg_catalog.aclexplode(e.acl) AS a
 WHERE a.grantee <> e.me
