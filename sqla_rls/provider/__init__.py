"""Who issues the tokens: one function per identity provider.

A ``Provider`` pins everything that a token must not decide for itself: the issuer, the keys, the
algorithms, the audience, and the Postgres roles that it may ask for (``sqla_rls.tokens.provider``).  Each
function makes the one of a known provider (``known.py``); to add one, add a function beside its siblings.
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
from sqla_rls.tokens.provider import PROVIDER_SUBJECT, Provider, RoleOptions, check_role

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
