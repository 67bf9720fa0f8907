"""The identity providers that are known, from A to Z; ``custom`` is for all others.

Every function takes ``role``, ``role_claim``, ``roles`` and ``subject_claim`` as ``Provider`` does.  Its
docstring names the provider's public page, and the claims that carry a role or an organization: a role
claim may be given to ``role_claim``, the others are for policies, as ``jwt_claim("org_id")``.  Where the
same keys sign for the applications of others, the audience is required.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, Unpack
from urllib.parse import urlsplit
from uuid import UUID

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.provider import Provider, RoleOptions, check_uri

Names: TypeAlias = str | tuple[str, ...]

_SEGMENT: Final = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


def auth0(domain: str, *, audience: Names, **roles: Unpack[RoleOptions]) -> Provider:
    """Auth0, access tokens (auth0.com/docs, Access Token Profiles).

    *domain* is the tenant's or a custom one, *audience* the identifier of your API: an ID token has the
    application's instead.  The issuer ends with a slash.  Claims: ``org_id``, ``permissions`` (a list),
    and what an Action adds under a name of its own, as ``https://example.com/roles`` (a list).
    """
    url = _url("domain", domain)
    return Provider(
        name="auth0",
        issuer=f"{url}/",
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=_needed("audience", audience),
        **roles,
    )


def clerk(
    frontend_api: str, *, authorized_parties: Names | None = None, **roles: Unpack[RoleOptions]
) -> Provider:
    """Clerk, session tokens (clerk.com/docs, Session tokens; Manual JWT verification).

    *frontend_api* is the Frontend API URL of your instance.  With *authorized_parties*, the origins of
    your frontends, ``azp`` must be one of them.  Pending sessions are refused, and so is what carries no
    ``sid``: OAuth and machine tokens, and JWT templates; for those there is ``custom``.  Claims: ``o``
    with ``id``, ``slg`` and ``rol`` (version 2; its role is at ``("o", "rol")``), before that ``org_id``,
    ``org_slug`` and ``org_role`` (``org:admin``).
    """
    url = _url("frontend_api", frontend_api)
    return Provider(
        name="clerk",
        issuer=url,
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=None,
        required_claims={"sid": (), "sts": ("active", None)} | _one_of("azp", authorized_parties),
        per_token_claims=("fva",),  # minutes since each factor was verified
        **roles,
    )


def cognito(
    user_pool_id: str, *, client_id: Names | None, id_tokens: bool = False, **roles: Unpack[RoleOptions]
) -> Provider:
    """AWS Cognito user pools, access tokens (docs.aws.amazon.com, Verifying JSON web tokens).

    *user_pool_id* names the region, too: ``eu-west-1_AbCdEf``.  Access tokens have no ``aud``: their
    *client_id* is checked instead; with *id_tokens*, those are taken instead, and their ``aud`` checked.
    None lets in the users of every app client of the pool.  Claims: ``cognito:groups`` (a list).
    """
    region, _, number = _id("user_pool_id", user_pool_id).partition("_")
    if not region or not number:
        raise DeclarationError("user_pool_id is the region, '_' and the pool's own part")
    issuer = f"https://cognito-idp.{region}.amazonaws.com/{user_pool_id}"
    client = _one_of("client_id", client_id)
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
    per_token_claims: tuple[str | tuple[str, ...], ...] = (),
    name: str = "custom",
    **roles: Unpack[RoleOptions],
) -> Provider:
    """Any issuer, by the URL of its JWKS, the document itself, or a public key in PEM.

    ``audience=None`` leaves ``aud`` unchecked, which is safe only for an issuer that issues tokens to
    nobody else: else whoever runs another of its applications can sign in here with its users' tokens.
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

    The issuer is the project's id, alone or at the end of a URL.  Refresh tokens, which the same key
    signs, and those of inbound apps are told apart by ``drn`` and refused.  Claims: ``roles`` and
    ``permissions`` (lists), ``dct`` (the current tenant), ``tenants`` with roles for each.
    """
    url, project = _url("base_url", base_url), _id("project_id", project_id)
    return Provider(
        name="descope",
        issuer=(project, f"{url}/{project}", f"{url}/v1/apps/{project}"),
        jwks_uri=f"{url}/{project}/.well-known/jwks.json",
        algorithms=("RS256",),
        audience=audience,
        required_claims={"drn": ("DS",)},
        per_token_claims=("rexp",),  # when the refresh token expires
        **roles,
    )


def entra(tenant_id: str, *, audience: Names, **roles: Unpack[RoleOptions]) -> Provider:
    """Microsoft Entra ID, formerly Azure AD (learn.microsoft.com, Access token claims reference).

    *audience* is the API's application id (tokens of version 2.0) or its application id URI (1.0).
    *tenant_id* is a tenant's GUID: ``common`` and the like would let in every tenant there is.  For several
    tenants give a ``Verifier`` one provider each.  Tokens without ``scp`` are refused: ID
    tokens, and those of applications without a user.  Claims: ``roles`` (a list), ``groups``, ``tid``,
    and ``oid``, which unlike ``sub`` is the same in all of a tenant's applications.
    """
    try:
        tenant = str(UUID(tenant_id))
    except (ValueError, AttributeError, TypeError):
        raise DeclarationError("tenant_id is the GUID of one tenant: neither 'common' nor a domain") from None
    host = "https://login.microsoftonline.com"
    return Provider(
        name="entra",
        issuer=(f"{host}/{tenant}/v2.0", f"https://sts.windows.net/{tenant}/"),
        jwks_uri=f"{host}/{tenant}/discovery/v2.0/keys",
        algorithms=("RS256",),
        audience=_needed("audience", audience),
        required_claims={"scp": ()},
        per_token_claims=("aio", "rh", "uti"),  # opaque, "for internal use"
        **roles,
    )


def firebase(project_id: str, **roles: Unpack[RoleOptions]) -> Provider:
    """Firebase and Google Cloud's Identity Platform (firebase.google.com/docs, Verify ID Tokens).

    All projects share their keys: the audience is always the project's id.  Anonymous users are users:
    ``firebase.sign_in_provider`` says ``anonymous``.  Claims: custom ones, by the name that you gave
    them, and ``("firebase", "tenant")``.
    """
    project = _id("project_id", project_id)
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

    All applications share their keys: *client_id* is yours, several in a tuple.  *hosted_domain* lets
    in the members of a Workspace or Cloud organization only (claim ``hd``); an e-mail address proves
    no such thing.  There is no role claim.
    """
    return Provider(
        name="google",
        issuer=("https://accounts.google.com", "accounts.google.com"),
        jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
        algorithms=("RS256",),
        audience=_needed("client_id", client_id),
        required_claims=_one_of("hd", hosted_domain),
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

    *base_url* ends with ``/auth`` in older versions.  *audience* is what an audience mapper adds for
    your API; ``account``, which most tokens have, proves nothing, and None lets in the tokens of every
    client of the realm.  With *authorized_parties*, client ids, ``azp`` must be one of them.  ID, refresh
    and logout tokens are told apart by the claim ``typ`` and refused.  Claims:
    ``("realm_access", "roles")`` and ``("resource_access", client_id, "roles")`` (lists).
    """
    issuer = f"{_url('base_url', base_url, path=True)}/realms/{_id('realm', realm)}"
    return Provider(
        name="keycloak",
        issuer=issuer,
        jwks_uri=f"{issuer}/protocol/openid-connect/certs",
        algorithms=algorithms,
        audience=audience,
        required_claims={"typ": ("Bearer",)} | _one_of("azp", authorized_parties),
        **roles,
    )


def neon_auth(base_url: str, *, audience: Names | None = None, **roles: Unpack[RoleOptions]) -> Provider:
    """Neon Auth (neon.com/docs, Neon Auth: JWT).

    *base_url* is the branch's auth URL; issuer and audience are its origin, without the path.  Claims:
    ``role``, and in an active organization ``o`` with ``id``, ``slug`` and ``role``.
    """
    url = _url("base_url", base_url, path=True)
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    return Provider(
        name="neon_auth",
        issuer=origin,
        jwks_uri=f"{url}/.well-known/jwks.json",
        algorithms=("EdDSA",),
        audience=origin if audience is None else audience,
        **roles,
    )


def propelauth(auth_url: str, **roles: Unpack[RoleOptions]) -> Provider:
    """PropelAuth, access tokens, which have no audience (docs.propelauth.com, Access Tokens).

    Claims: ``org_id_to_org_member_info``, by organization, each with ``user_role`` and
    ``user_permissions``; with an active organization ``org_member_info`` instead, whose role is at
    ``("org_member_info", "user_role")``.
    """
    url = _url("auth_url", auth_url)
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

    Its anonymous and restricted users have another issuer and another audience: they are refused.
    Claims: ``role``, ``selected_team_id``.
    """
    project = _id("project_id", project_id)
    issuer = f"{_url('base_url', base_url, path=True)}/api/v1/projects/{project}"
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

    *project_id* starts with ``project-test-`` or ``project-live-``, which says where its keys are.
    *domain* is a custom domain, and then the issuer.  *b2b* is for projects with organizations.  What a
    user grants to a connected app is no session, and refused.  Claims: ``https://stytch.com/session``,
    whose roles in B2B are at ``("https://stytch.com/session", "roles")`` (a list), and
    ``https://stytch.com/organization`` with ``organization_id`` and ``slug``.
    """
    project = _id("project_id", project_id)
    environment = re.match("project-(test|live)-", project)
    if environment is None:
        raise DeclarationError("project_id starts with 'project-test-' or 'project-live-'")
    url = f"https://{environment[1]}.stytch.com" if domain is None else _url("domain", domain)
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
    project_url: str, *, audience: Names = "authenticated", **roles: Unpack[RoleOptions]
) -> Provider:
    """Supabase Auth (supabase.com/docs, JWT Claims Reference; JWT Signing Keys).

    *project_url* is ``https://<project ref>.supabase.co``, a custom domain, or your own server.  Projects
    that still sign with the legacy JWT secret (HS256) must change to a signing key (ES256, RS256) first.

    Unless you say otherwise the claim ``role`` chooses between ``authenticated`` and ``anon``; a token
    for ``service_role``, which bypasses row security, is refused.  Users who signed in anonymously are
    ``authenticated``, too, with ``is_anonymous`` true.  Claims: ``app_metadata``, which only you write, as
    in ``("app_metadata", "role")``; ``user_metadata`` users write themselves: no policy may believe it.
    """
    issuer = f"{_url('project_url', project_url)}/auth/v1"
    if not roles.keys() & {"role", "role_claim", "roles"}:
        roles["role_claim"], roles["roles"] = "role", ("authenticated", "anon")
    return Provider(
        name="supabase",
        issuer=issuer,
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("ES256", "RS256"),
        audience=_needed("audience", audience),
        **roles,
    )


def supertokens(api_url: str, *, core_url: str | None = None, **roles: Unpack[RoleOptions]) -> Provider:
    """SuperTokens, session tokens, which have no audience (supertokens.com/docs, Manual JWT verification).

    *api_url* is ``apiDomain`` and ``apiBasePath`` of your ``appInfo``: ``https://api.example.com/auth``.
    The keys come from there, or with *core_url* from the core.  OAuth2 tokens, and JWTs that you have it
    sign, are no sessions and refused.  Claims: ``("st-role", "v")`` (a list), ``tId`` (the tenant).
    """
    issuer = _url("api_url", api_url, path=True)
    core = None if core_url is None else _url("core_url", core_url, path=True)
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

    *issuer* is needed with a custom authentication domain, and for environments from before the middle of
    2025: ``https://api.workos.com``.  There is no audience unless a JWT template adds one.  Claims:
    ``org_id``, ``role``, ``roles`` and ``permissions`` (lists).
    """
    client = _id("client_id", client_id)
    return Provider(
        name="workos",
        issuer=f"https://api.workos.com/user_management/{client}" if issuer is None else issuer,
        jwks_uri=f"https://api.workos.com/sso/jwks/{client}",
        algorithms=("RS256",),
        audience=audience,
        required_claims={"sid": ()},
        **roles,
    )


def _id(what: str, value: object) -> str:
    """*value*, which is one segment of a URL, and can't lead to another."""
    if not isinstance(value, str) or not re.fullmatch(_SEGMENT, value):
        raise DeclarationError(f"{what} has letters, digits, '-', '_' and single dots only")
    return value


def _url(what: str, value: object, *, path: bool = False) -> str:
    """The URL of the host *value*, which may be a URL itself, without a slash at its end."""
    url = value.removesuffix("/") if isinstance(value, str) else ""
    if "://" not in url:
        url = f"https://{url}"
    if not re.fullmatch(rf"[a-z]+://[A-Za-z0-9.:\[\]-]+{f'(/{_SEGMENT})*' if path else ''}", url):
        raise DeclarationError(f"{what} is a host, or https:// and a host{' and a path' if path else ''}")
    try:
        check_uri(what, url)
    except ValueError as problem:
        raise DeclarationError(f"{problem}") from None
    return url


def _needed(what: str, names: Names | None) -> Names:
    if not names:
        raise DeclarationError(f"{what} is required: the same keys sign for other applications, too")
    return names


def _one_of(claim: str, names: Names | None) -> dict[str, tuple[str | None, ...]]:
    """What ``required_claims`` says of *claim*, if it is to be checked."""
    if names is None:
        return {}
    if not names:
        raise DeclarationError(f"claim {claim!r} can't be one of none; None leaves it unchecked")
    return {claim: (names,) if isinstance(names, str) else names}
