-- What each function of schema auth says of the claims, which an expression calls "claims".
SELECT d.name, d.returns, format(d.value, u.value) AS value
  FROM (SELECT format('^(%1$s|urn:uuid:%1$s|[{]%1$s[}]|[0-9A-Fa-f]{32})$',
                      '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}')) AS u (value), (VALUES
    ('session',         'jsonb', 'claims'),
    ('jwt',             'jsonb', 'claims'),
    ('user_id',         'text',  $$CASE WHEN jsonb_typeof(claims -> 'sub') = 'string' THEN claims ->> 'sub' END$$),
    ('uid',             'uuid',  $$CASE WHEN jsonb_typeof(claims -> 'sub') = 'string' AND claims ->> 'sub' ~ %L
                                   THEN replace(claims ->> 'sub', 'urn:uuid:', '')::uuid END$$),
    ('organization',    'jsonb', $$CASE WHEN jsonb_typeof(claims -> 'o') = 'object' THEN claims -> 'o' END$$),
    ('organization_id', 'uuid',  $$CASE WHEN jsonb_typeof(claims -> 'o' -> 'id') = 'string' AND claims -> 'o' ->> 'id' ~ %L
                                   THEN replace(claims -> 'o' ->> 'id', 'urn:uuid:', '')::uuid END$$)
  ) AS d (name, returns, value)
