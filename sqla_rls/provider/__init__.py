"""One function for each identity provider.

A ``Provider`` (``sqla_rls.tokens.provider``) pins the facts that a token must not decide for itself: the
issuer, the keys, the algorithms, the audience, and the Postgres roles.  Each function of ``known.py`` returns
the one of a known provider.
"""

from sqla_rls.provider.known import (
    auth0,
    clerk,
    cognito,
    custom,
    descope,
    entra,
    firebase,
    google,
    keycloak,
    neon_auth,
    propelauth,
    stack_auth,
    stytch,
    supabase,
    supertokens,
    workos,
)
from sqla_rls.tokens.names import PROVIDER_SUBJECT, check_role
from sqla_rls.tokens.provider import Provider, RoleOptions

__all__ = [
    "PROVIDER_SUBJECT",
    "Provider",
    "RoleOptions",
    "auth0",
    "check_role",
    "clerk",
    "cognito",
    "custom",
    "descope",
    "entra",
    "firebase",
    "google",
    "keycloak",
    "neon_auth",
    "propelauth",
    "stack_auth",
    "stytch",
    "supabase",
    "supertokens",
    "workos",
]
