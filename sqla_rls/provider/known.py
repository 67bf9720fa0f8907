"""The known identity providers, from A to Z; ``custom`` is for all others.

Every function takes ``role``, ``role_claim``, ``roles`` and ``subject_claim`` as ``Provider`` does.  Its
docstring names the provider's documentation, and the claims with a role or an organization.  Pass a role
claim as ``role_claim``; use the others in policies, as in ``jwt_claim("org_id")``.  The audience is required
if the same keys also sign tokens for applications of others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import urlsplit
from uuid import UUID

from sqla_rls.exc import DeclarationError
from sqla_rls.provider.arguments import Names, checked_id, checked_url, one_of, required
from sqla_rls.tokens.provider import Provider, RoleOptions


def auth0(domain: str, *, audience: Names, **roles: Unpack[RoleOptions]) -> Provider:
    """Auth0, access tokens (auth0.com/docs, Access Token Profiles).

    The issuer ends with a slash.  Claims: ``org_id``, ``permissions`` (a list), and the claims that an Action
    adds under a name such as ``https://example.com/roles``.  Tokens of anonymous sessions are refused by
    their subject.

    Args:
        domain: the domain of the tenant, or a custom domain.
        audience: the identifier of your API.  An ID token has the application's identifier instead.
        **roles: as in ``Provider``.
    """
    url = checked_url("domain", domain)
    return Provider(
        name="auth0",
        issuer=f"{url}/",
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=required("audience", audience),
        refused_subjects=("anon@", "anon|"),  # auth0.com/docs, Anonymous Sessions
        **roles,
    )


def clerk(
    frontend_api: str, *, authorized_parties: Names | None = None, **roles: Unpack[RoleOptions]
) -> Provider:
    """Clerk, session tokens (clerk.com/docs, Session tokens; Manual JWT verification).

    Pending sessions are refused.  Tokens without ``sid`` are refused, too: OAuth and machine tokens, and JWT
    templates.  Use ``custom`` for those.  Claims in version 2: ``o`` with ``id``, ``slg`` and ``rol``; the
    role is at ``("o", "rol")``.  Claims in version 1: ``org_id``, ``org_slug`` and ``org_role``
    (``org:admin``).

    Args:
        frontend_api: the Frontend API URL of your instance.
        authorized_parties: the origins of your frontends; ``azp`` must be one of them.  None skips the check.
        **roles: as in ``Provider``.
    """
    url = checked_url("frontend_api", frontend_api)
    return Provider(
        name="clerk",
        issuer=url,
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=None,
        required_claims={"sid": (), "sts": ("active", None)} | one_of("azp", authorized_parties),
        per_token_claims=("fva",),  # minutes since each factor was verified
        **roles,
    )


def cognito(
    user_pool_id: str, *, client_id: Names | None, id_tokens: bool = False, **roles: Unpack[RoleOptions]
) -> Provider:
    """AWS Cognito user pools, access tokens (docs.aws.amazon.com, Verifying JSON web tokens).

    Claims: ``cognito:groups`` (a list).

    Args:
        user_pool_id: the id with the region: ``eu-west-1_AbCdEf``.
        client_id: the accepted app clients.  None accepts the users of every app client of the pool.
        id_tokens: accept ID tokens instead, and check their ``aud``.  Access tokens have no ``aud``, so
            their claim ``client_id`` is checked.
        **roles: as in ``Provider``.
    """
    region, _, number = checked_id("user_pool_id", user_pool_id).partition("_")
    if not region or not number:
        raise DeclarationError(
            "the provider can't be made: user_pool_id has no region. Give 'eu-west-1_AbCdEf', for example"
        )
    issuer = f"https://cognito-idp.{region}.amazonaws.com/{user_pool_id}"
    client = one_of("client_id", client_id)
    return Provider(
        name="cognito",
        issuer=issuer,
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=client_id if id_tokens else None,
        required_claims={"token_use": ("id",)} if id_tokens else {"token_use": ("access",), **client},
        **roles,
    )


def custom(
    *,
    issuer: Names,
    jwks_uri: str | None = None,
    jwks: Mapping[str, Any] | None = None,
    public_key: str | bytes | None = None,
    algorithms: tuple[str, ...],
    audience: Names | None,
    required_claims: Mapping[str, tuple[str | None, ...]] | None = None,
    refused_subjects: tuple[str, ...] = (),
    per_token_claims: tuple[str | tuple[str, ...], ...] = (),
    name: str = "custom",
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Any issuer, by the URL of its JWKS document, the document itself, or a public key in PEM.

    The arguments are those of ``Provider``.  ``audience=None`` skips the check of ``aud``.  It is safe only
    if the issuer issues tokens to no other application.  Otherwise, the operator of another application can
    use the tokens of its users here.
    """
    return Provider(
        name=name,
        issuer=issuer,
        jwks_uri=jwks_uri,
        jwks=jwks,
        public_key=public_key,
        algorithms=algorithms,
        audience=audience,
        required_claims=required_claims or {},
        refused_subjects=refused_subjects,
        per_token_claims=per_token_claims,
        **roles,
    )


def descope(
    project_id: str,
    *,
    base_url: str = "https://api.descope.com",
    audience: Names | None = None,
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Descope, session tokens (docs.descope.com, Session Management).

    The issuer is the project's id, alone or at the end of a URL.  The same key signs refresh tokens and the
    tokens of inbound apps; these are refused by their claim ``drn``.  Anonymous users are refused by their
    claim ``danu``.  Claims: ``roles`` and ``permissions`` (lists), ``dct`` (the current tenant), ``tenants``
    with roles for each.
    """
    url, project = checked_url("base_url", base_url), checked_id("project_id", project_id)
    return Provider(
        name="descope",
        issuer=(project, f"{url}/{project}", f"{url}/v1/apps/{project}"),
        jwks_uri=f"{url}/{project}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=audience,
        required_claims={"drn": ("DS",), "danu": (None,)},
        per_token_claims=("rexp",),  # when the refresh token expires
        **roles,
    )


def entra(tenant_id: str, *, audience: Names, **roles: Unpack[RoleOptions]) -> Provider:
    """Microsoft Entra ID, formerly Azure AD (learn.microsoft.com, Access token claims reference).

    Tokens without ``scp`` are refused: ID tokens, and tokens of applications without a user.  Claims:
    ``roles`` (a list), ``groups``, ``tid`` and ``oid``.  Unlike ``sub``, ``oid`` is the same in all
    applications of a tenant.

    Args:
        tenant_id: the GUID of one tenant.  A value such as ``common`` would accept every tenant.  For several
            tenants, give a ``Verifier`` one provider each.
        audience: the application id of your API (tokens of version 2.0), or its application id URI (1.0).
        **roles: as in ``Provider``.
    """
    try:
        tenant = str(UUID(tenant_id))
    except (ValueError, AttributeError, TypeError):
        raise DeclarationError(
            "the provider can't be made: tenant_id isn't a GUID. "
            "Give the GUID of one tenant, not 'common' or a domain"
        ) from None
    host = "https://login.microsoftonline.com"
    return Provider(
        name="entra",
        issuer=(f"{host}/{tenant}/v2.0", f"https://sts.windows.net/{tenant}/"),
        jwks_uri=f"{host}/{tenant}/discovery/v2.0/keys",
        algorithms=("RS256",),
        audience=required("audience", audience),
        required_claims={"scp": ()},
        per_token_claims=("aio", "rh", "uti"),  # opaque, "for internal use"
        **roles,
    )


def firebase(project_id: str, **roles: Unpack[RoleOptions]) -> Provider:
    """Firebase and Google Cloud's Identity Platform (firebase.google.com/docs, Verify ID Tokens).

    All projects share their keys, so the audience is always the project's id.  Anonymous users are accepted;
    their ``firebase.sign_in_provider`` is ``anonymous``.  The users of every tenant of the project are
    accepted, too; a policy tells them apart by ``("firebase", "tenant")``.  Claims: your custom claims.
    """
    project = checked_id("project_id", project_id)
    return Provider(
        name="firebase",
        issuer=f"https://securetoken.google.com/{project}",
        jwks_uri="https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
        algorithms=("RS256",),
        audience=project,
        **roles,
    )


def google(*, client_id: Names, hosted_domain: Names | None = None, **roles: Unpack[RoleOptions]) -> Provider:
    """Google's ID tokens (developers.google.com/identity, Verify the Google ID token).

    There is no role claim.

    Args:
        client_id: your client id, or a tuple of them.  All applications share their keys.
        hosted_domain: accept only the members of this Workspace or Cloud organization (claim ``hd``).  An
            e-mail address doesn't prove the membership.
        **roles: as in ``Provider``.
    """
    return Provider(
        name="google",
        issuer=("https://accounts.google.com", "accounts.google.com"),
        jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
        algorithms=("RS256",),
        audience=required("client_id", client_id),
        required_claims=one_of("hd", hosted_domain),
        **roles,
    )


def keycloak(
    base_url: str,
    realm: str,
    *,
    audience: Names | None,
    authorized_parties: Names | None = None,
    algorithms: tuple[str, ...] = ("RS256",),
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Keycloak, access tokens (keycloak.org, Server Administration Guide: Audience support).

    ID, refresh and logout tokens are refused by their claim ``typ``.  Claims: ``("realm_access", "roles")``
    and ``("resource_access", client_id, "roles")`` (lists).

    Args:
        base_url: the URL of the server; in older versions it ends with ``/auth``.
        realm: the realm.
        audience: the value that an audience mapper adds for your API.  Most tokens have ``account``, so it
            proves nothing.  None accepts the tokens of every client of the realm.
        authorized_parties: client ids; ``azp`` must be one of them.  None skips the check.
        algorithms: the accepted algorithms.
        **roles: as in ``Provider``.
    """
    issuer = f"{checked_url('base_url', base_url, path=True)}/realms/{checked_id('realm', realm)}"
    return Provider(
        name="keycloak",
        issuer=issuer,
        jwks_uri=f"{issuer}/protocol/openid-connect/certs",
        algorithms=algorithms,
        audience=audience,
        required_claims={"typ": ("Bearer",)} | one_of("azp", authorized_parties),
        **roles,
    )


def neon_auth(base_url: str, *, audience: Names | None = None, **roles: Unpack[RoleOptions]) -> Provider:
    """Neon Auth (neon.com/docs, Neon Auth: JWT).

    Issuer and audience are the origin of *base_url*, the auth URL of the branch.  The claim ``role`` must be
    ``authenticated``, as for the Data API: visitors who haven't signed in get tokens with another role.  To
    accept these with their own role, give ``role_claim="role"`` and ``roles=("authenticated", "anonymous")``.
    Claims: in an active organization ``o`` with ``id``, ``slug`` and ``role``.
    """
    url = checked_url("base_url", base_url, path=True)
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    more = roles.get("roles", ()) if roles.get("role_claim") in ("role", ("role",)) else ()
    return Provider(
        name="neon_auth",
        issuer=origin,
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("EdDSA",),
        audience=origin if audience is None else audience,
        required_claims={"role": ("authenticated", *more)},
        **roles,
    )


def propelauth(auth_url: str, **roles: Unpack[RoleOptions]) -> Provider:
    """PropelAuth, access tokens, which have no audience (docs.propelauth.com, Access Tokens).

    Claims: ``org_id_to_org_member_info``, with ``user_role`` and ``user_permissions`` for each organization.
    With an active organization, a token has ``org_member_info`` instead; the role is at
    ``("org_member_info", "user_role")``.
    """
    url = checked_url("auth_url", auth_url)
    return Provider(
        name="propelauth",
        issuer=url,
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=None,
        **roles,
    )


def stack_auth(
    project_id: str,
    *,
    base_url: str = "https://api.stack-auth.com",
    audience: Names | None = None,
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Stack Auth (docs.stack-auth.com, JWT Tokens).  The audience is the project's id unless given.

    Anonymous and restricted users have another issuer and another audience, so they are refused.  Claims:
    ``role``, ``selected_team_id``.
    """
    project = checked_id("project_id", project_id)
    issuer = f"{checked_url('base_url', base_url, path=True)}/api/v1/projects/{project}"
    return Provider(
        name="stack_auth",
        issuer=issuer,
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("ES256",),
        audience=project if audience is None else audience,
        **roles,
    )


def stytch(
    project_id: str, *, domain: str | None = None, b2b: bool = False, **roles: Unpack[RoleOptions]
) -> Provider:
    """Stytch, session JWTs (stytch.com/docs, Session JWTs).  The audience is the project's id.

    Tokens that a user grants to a connected app are refused.  Claims: ``https://stytch.com/session``, and
    ``https://stytch.com/organization`` with ``organization_id`` and ``slug``.  In B2B the roles are at
    ``("https://stytch.com/session", "roles")`` (a list).

    Args:
        project_id: the id, which starts with ``project-test-`` or ``project-live-``.
        domain: a custom domain, which is also the issuer.
        b2b: the project has organizations.
        **roles: as in ``Provider``.
    """
    project = checked_id("project_id", project_id)
    environment = re.match("project-(test|live)-", project)
    if environment is None:
        raise DeclarationError(
            "the provider can't be made: project_id has no environment. "
            "Give one that starts with 'project-test-' or 'project-live-'"
        )
    url = f"https://{environment[1]}.stytch.com" if domain is None else checked_url("domain", domain)
    return Provider(
        name="stytch",
        issuer=f"stytch.com/{project}" if domain is None else (url, f"stytch.com/{project}"),
        jwks_uri=f"{url}/v1/{'b2b/' if b2b else ''}sessions/jwks/{project}",
        algorithms=("RS256",),
        audience=project,
        required_claims={"https://stytch.com/session": ()},
        per_token_claims=tuple(
            ("https://stytch.com/session", name) for name in ("expires_at", "last_accessed_at")
        ),
        **roles,
    )


def supabase(
    project_url: str,
    *,
    audience: Names = "authenticated",
    oauth_clients: Names = (),
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Supabase Auth (supabase.com/docs, JWT Claims Reference; JWT Signing Keys).

    A project that signs with the legacy JWT secret (HS256) must change to a signing key (ES256, RS256) first.

    By default the claim ``role`` chooses between ``authenticated`` and ``anon``.  A token for
    ``service_role``, which bypasses row security, is refused.  Users who signed in anonymously have the role
    ``authenticated``, and claim ``is_anonymous`` is true.  Claims: ``app_metadata``, which only you write, as
    in ``("app_metadata", "role")``.  Users write ``user_metadata`` themselves, so no policy may trust it.

    Args:
        project_url: ``https://<project ref>.supabase.co``, a custom domain, or your own server.
        audience: the accepted audiences.
        oauth_clients: the ids of OAuth apps whose tokens are accepted, too (Supabase docs, OAuth 2.1 Server).
            Such a token has all rights of its user, and its claim ``client_id`` names the app.
        **roles: as in ``Provider``.
    """
    issuer = f"{checked_url('project_url', project_url)}/auth/v1"
    clients = (oauth_clients,) if isinstance(oauth_clients, str) else oauth_clients
    if not roles.keys() & {"role", "role_claim", "roles"}:
        roles["role_claim"], roles["roles"] = "role", ("authenticated", "anon")
    return Provider(
        name="supabase",
        issuer=issuer,
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("ES256", "RS256"),
        audience=required("audience", audience),
        required_claims={"client_id": (None, *clients)},
        **roles,
    )


def supertokens(api_url: str, *, core_url: str | None = None, **roles: Unpack[RoleOptions]) -> Provider:
    """SuperTokens, session tokens, which have no audience (supertokens.com/docs, Manual JWT verification).

    OAuth2 tokens, and JWTs that your app lets it sign, are refused.  Claims: ``("st-role", "v")`` (a list),
    ``tId`` (the tenant).

    Args:
        api_url: ``apiDomain`` and ``apiBasePath`` of your ``appInfo``: ``https://api.example.com/auth``.
        core_url: the URL of the core, for its keys.  None takes the keys of *api_url*.
        **roles: as in ``Provider``.
    """
    issuer = checked_url("api_url", api_url, path=True)
    core = None if core_url is None else checked_url("core_url", core_url, path=True)
    return Provider(
        name="supertokens",
        issuer=issuer,
        jwks_uri=f"{issuer}/jwt/jwks.json" if core is None else f"{core}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=None,
        required_claims={"sessionHandle": ()},
        per_token_claims=("refreshTokenHash1", "parentRefreshTokenHash1", "antiCsrfToken"),
        **roles,
    )


def workos(
    client_id: str,
    *,
    issuer: Names | None = None,
    audience: Names | None = None,
    **roles: Unpack[RoleOptions],
) -> Provider:
    """WorkOS AuthKit, session tokens (workos.com/docs, Sessions; Session tokens).

    Tokens of Connect applications are refused.  Claims: ``org_id``, ``role``, ``roles`` and ``permissions``
    (lists).

    Args:
        client_id: your client id.
        issuer: the issuer of a custom authentication domain.  For environments from before the middle of
            2025, give ``https://api.workos.com``.
        audience: the audience that a JWT template adds; there is none by default.
        **roles: as in ``Provider``.
    """
    client = checked_id("client_id", client_id)
    return Provider(
        name="workos",
        issuer=f"https://api.workos.com/user_management/{client}" if issuer is None else issuer,
        jwks_uri=f"https://api.workos.com/sso/jwks/{client}",
        algorithms=("RS256",),
        audience=audience,
        # The token of a Connect application has the sid of the user's consent, and its own client_id.
        required_claims={"sid": (), "client_id": (None, client)},
        **roles,
    )
