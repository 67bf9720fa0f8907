    -- For as long as this takes: to hand ownership over, and to act as the owner.  From 16 on a membership
    -- says what it is good for.
    IF NOT pg_has_role('sqla_rls_keyholder', 'USAGE')
       OR version >= 160000 AND NOT pg_has_role('sqla_rls_keyholder', 'SET') THEN
      EXECUTE format('GRANT sqla_rls_keyholder TO %I %s', current_user,
                     CASE WHEN version >= 160000 THEN 'WITH INHERIT TRUE, SET TRUE' END);
      borrowed := true;
    END IF;
