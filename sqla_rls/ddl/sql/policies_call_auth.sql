-- Whether policies for the grantees call functions of schema auth.
EXISTS (
       SELECT FROM pg_catalog.pg_policy AS p
         JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
         JOIN pg_catalog.pg_proc AS f ON f.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
        -- Restrictive policies imply no privilege.
        WHERE p.polpermissive AND f.pronamespace = pg_catalog.to_regnamespace('auth')
          AND p.polroles && ARRAY(SELECT coalesce(to_regrole(quote_ident(grantee))::oid, 0)
                                    FROM unnest({grantees} || {bringing}) AS grantee))
