-- What some roles own and policies use: by it they change who reads which rows, or run SQL as others.
WITH RECURSIVE roles AS (
  SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (CAST(:roles AS pg_catalog.name[]))
), dependents AS (
{dependents}
), owned AS (
  SELECT owner, owned_class::regclass AS class, owned AS object, 5 AS rank,
         'which an event trigger runs, for superusers, too' AS why
    FROM dependents WHERE runs AND class = 'pg_catalog.pg_event_trigger'::regclass
   UNION ALL
  SELECT owner, owned_class::regclass, owned, 6,
         CASE owned_class WHEN 'pg_catalog.pg_type'::regclass THEN 'whose checks run with the rights of its users'
              ELSE 'which runs with the rights of its callers' END
    FROM dependents
   WHERE runs AND (class IN ('pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_attrdef'::regclass,
                             'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_statistic_ext'::regclass,
                             'pg_catalog.pg_cast'::regclass)
                   -- A domain depends on none of its own constraints.
                   OR class = 'pg_catalog.pg_constraint'::regclass AND owned_class = 'pg_catalog.pg_proc'::regclass
                   OR class = 'pg_catalog.pg_class'::regclass AND EXISTS (
                      SELECT FROM pg_catalog.pg_class AS c
                       WHERE c.oid = object AND c.relkind IN ('r', 'p', 'f', 'i', 'I') AND c.relpersistence <> 't'))
   UNION ALL
  SELECT owner, owned_class::regclass, owned, 7, 'which a protected table uses'
    FROM dependents JOIN pg_catalog.pg_class AS c ON c.oid = object AND c.relrowsecurity
   WHERE class = 'pg_catalog.pg_class'::regclass
   UNION ALL
  -- The owner can replace it, or drop it with the policy.
  SELECT owner, owned_class::regclass, owned, 8, 'which a policy depends on'
    FROM dependents WHERE class = 'pg_catalog.pg_policy'::regclass
)
SELECT DISTINCT ON (r.rolname, i.type, i.identity) r.rolname AS role, i.type, i.identity, o.why
  FROM owned AS o JOIN roles AS r ON r.oid = o.owner, pg_catalog.pg_identify_object(o.class, o.object, 0) AS i
 ORDER BY r.rolname, i.type, i.identity, o.rank
