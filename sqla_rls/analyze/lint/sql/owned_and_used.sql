-- What some roles own and policies use: by it they change who reads which rows, or run SQL as others.
WITH RECURSIVE roles AS (
  SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (CAST(:roles AS pg_catalog.name[]))
), {used_objects}
SELECT DISTINCT ON (r.rolname, i.type, i.identity) r.rolname AS role, i.type, i.identity, o.why
  FROM used AS o JOIN roles AS r ON r.oid = o.owner, pg_catalog.pg_identify_object(o.class, o.object, 0) AS i
 ORDER BY r.rolname, i.type, i.identity, o.rank
