dependents AS (
  -- What depends on an object of these roles, from the object upwards: they own little.  "runs" says that the object is
  -- code, which its users run.  The bootstrap superuser owns nothing in pg_shdepend, but is itself a reason.
  SELECT s.refobjid AS owner, s.classid AS owned_class, s.objid AS owned,
         s.classid = 'pg_catalog.pg_proc'::regclass
         OR s.classid = 'pg_catalog.pg_type'::regclass
            AND EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.oid = s.objid AND t.typtype = 'd') AS runs,
         s.classid AS class, s.objid AS object
    FROM pg_catalog.pg_shdepend AS s
   WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.deptype = 'o'
     AND s.refobjid IN (SELECT oid FROM roles)
     AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
     AND s.classid <> 'pg_catalog.pg_largeobject'::regclass
   UNION
  SELECT u.owner, u.owned_class, u.owned, u.runs, n.class, n.object
    FROM dependents AS u, LATERAL (
      -- Parts of a table, such as its indexes and foreign keys, decide about no policy.
      SELECT d.classid AS class, d.objid AS object
        FROM pg_catalog.pg_depend AS d
       WHERE d.refclassid = u.class AND d.refobjid = u.object
         AND (u.class <> 'pg_catalog.pg_class'::regclass
              OR d.classid IN ('pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_proc'::regclass,
                               'pg_catalog.pg_type'::regclass)
              -- A child, or a partition.
              OR d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('n', 'a') AND d.refobjsubid = 0)
       UNION ALL
      -- From a part to its whole: from a rule to its view, and from code in a table to the table.
      SELECT w.refclassid, w.refobjid
        FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_depend AS w ON w.classid = d.classid AND w.objid = d.objid
       WHERE d.refclassid = u.class AND d.refobjid = u.object
         AND (d.classid = 'pg_catalog.pg_rewrite'::regclass
              OR u.class NOT IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_namespace'::regclass))
         AND (d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.deptype = 'i'
              OR u.class <> 'pg_catalog.pg_class'::regclass AND w.deptype IN ('a', 'i')
                 AND w.refclassid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_type'::regclass)
                 AND d.classid IN ('pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_attrdef'::regclass,
                                   'pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_rewrite'::regclass,
                                   'pg_catalog.pg_statistic_ext'::regclass, 'pg_catalog.pg_class'::regclass)
              OR d.classid IN ('pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
                 AND w.refclassid IN ('pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass,
                                      'pg_catalog.pg_operator'::regclass))
       UNION ALL
      -- From a child to its parents, which show its rows, and from an operator class to its type.
      SELECT w.refclassid, w.refobjid
        FROM pg_catalog.pg_depend AS w
       WHERE u.class IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_opclass'::regclass)
         AND w.classid = u.class AND w.objid = u.object
         AND (u.class = 'pg_catalog.pg_class'::regclass AND w.refclassid = 'pg_catalog.pg_class'::regclass
              AND w.deptype IN ('n', 'a') AND w.refobjsubid = 0
              OR u.class = 'pg_catalog.pg_opclass'::regclass
                 AND w.refclassid IN ('pg_catalog.pg_type'::regclass, 'pg_catalog.pg_opfamily'::regclass))
    ) AS n
), used AS (
  -- The owner changes by it who reads which rows, or runs SQL as others.
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
