"""The known providers: what is pinned, an access token as documented, and what must be refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqla_rls import provider
from sqla_rls.provider import Provider

TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
STYTCH = "project-test-16d9ba61-97a1-4ba4-9720-b03761dc50c6"
SESSION, ORGANIZATION = "https://stytch.com/session", "https://stytch.com/organization"


Claims = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A provider, an access token as documented, and changes to it that must be refused.

    In *claims* and in a change None leaves a claim out, as the empty text does in *header*.
    """

    provider: Provider
    issuers: tuple[str, ...]
    jwks_uri: str
    algorithms: tuple[str, ...] = ("RS256",)
    claims: Claims
    header: Claims = field(default_factory=dict[str, Any])
    also: tuple[Claims, ...] = ()  # changes that are accepted
    refused: dict[str, Claims] = field(default_factory=dict[str, Any])
    roles: tuple[
        tuple[Any, Claims, str], ...
    ] = ()  # a role claim, a change, and the role of ("admin", "anon")


CASES = {
    "auth0": Case(
        provider=provider.auth0("todos.eu.auth0.com", audience="https://api.example.com"),
        issuers=("https://todos.eu.auth0.com/",),
        jwks_uri="https://todos.eu.auth0.com/.well-known/jwks.json",
        claims={
            "iss": "https://todos.eu.auth0.com/",
            "aud": ["https://api.example.com", "https://todos.eu.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile read:todos",
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "permissions": ["read:todos"],
        },
        header={"typ": "at+jwt"},
        also=({"aud": "https://api.example.com"},),
        refused={
            "ID token": {"aud": "my_client_id", "nonce": "n"},
            "issuer without its slash": {"iss": "https://todos.eu.auth0.com"},
            "another tenant": {"iss": "https://evil.eu.auth0.com/"},
            "for userinfo only": {"aud": ["https://todos.eu.auth0.com/userinfo"]},
            "anonymous session": {"sub": "anon@0d6b7b1c-4c0a-4a8a-9a53-5d8a3e9f0c11", "scope": "anon"},
            "anonymous session, as first documented": {"sub": "anon|0d6b7b1c", "scope": "anon"},
        },
        roles=(("https://example.com/roles", {"https://example.com/roles": ["viewer", "admin"]}, "admin"),),
    ),
    "clerk": Case(
        provider=provider.clerk("clerk.example.com", authorized_parties=("https://example.com",)),
        issuers=("https://clerk.example.com",),
        jwks_uri="https://clerk.example.com/.well-known/jwks.json",
        claims={
            "iss": "https://clerk.example.com",
            "azp": "https://example.com",
            "fva": [7, -1],
            "jti": "1234567890",
            "sid": "sess_123",
            "v": 2,
            "pla": "u:free,o:pro",
            "fea": "o:dashboard",
            "sts": "active",
            "o": {"id": "org_123", "slg": "org-slug", "rol": "admin", "per": "read,manage", "fpm": "3,2"},
        },
        also=({"sts": None},),
        refused={
            "pending session": {"sts": "pending"},
            "another origin": {"azp": "https://evil.example"},
            "no origin": {"azp": None},
            "OAuth token": {"sid": None, "client_id": "client_1", "scope": "profile"},
            "development instance": {"iss": "https://example.clerk.accounts.dev"},
        },
        roles=(
            (("o", "rol"), {}, "admin"),
            ("org_role", {"v": None, "o": None, "org_id": "org_123", "org_role": "admin"}, "admin"),
            (("o", "rol"), {"o": None}, "authenticated"),
        ),
    ),
    "cognito": Case(
        provider=provider.cognito("eu-west-1_AbCdEf123", client_id="1example23456789"),
        issuers=("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123",),
        jwks_uri="https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123/.well-known/jwks.json",
        claims={
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123",
            "cognito:groups": ["testgroup", "admin"],
            "version": 2,
            "client_id": "1example23456789",
            "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-example",
            "token_use": "access",
            "scope": "phone openid profile email",
            "auth_time": 1676313851,
            "jti": "bbbbbbbb-bbbb-cccc-dddd-example",
            "username": "my-test-user",
        },
        header={"typ": ""},
        refused={
            "ID token": {"token_use": "id", "aud": "1example23456789", "client_id": None},
            "ID token with a client_id": {"token_use": "id", "aud": "1example23456789"},
            "another app client": {"client_id": "2example23456789"},
            "no app client": {"client_id": None},
            "no purpose": {"token_use": None},
            "another pool": {"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other"},
        },
        roles=(
            ("cognito:groups", {}, "admin"),
            ("cognito:groups", {"cognito:groups": None}, "authenticated"),
        ),
    ),
    "cognito, ID tokens": Case(
        provider=provider.cognito("eu-west-1_AbCdEf123", client_id="1example23456789", id_tokens=True),
        issuers=("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123",),
        jwks_uri="https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123/.well-known/jwks.json",
        claims={
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123",
            "aud": "1example23456789",
            "cognito:groups": ["admin"],
            "email_verified": True,
            "cognito:username": "my-test-user",
            "token_use": "id",
            "auth_time": 1676312777,
        },
        header={"typ": ""},
        refused={
            "access token": {"token_use": "access", "client_id": "1example23456789", "aud": None},
            "access token with an audience": {"token_use": "access"},
        },
    ),
    "custom": Case(
        provider=provider.custom(
            issuer="https://id.example.com",
            jwks_uri="https://id.example.com/keys",
            algorithms=("ES256", "EdDSA"),
            audience=("web", "mobile"),
            required_claims={"kind": ("person",)},
        ),
        issuers=("https://id.example.com",),
        jwks_uri="https://id.example.com/keys",
        algorithms=("ES256", "EdDSA"),
        claims={"iss": "https://id.example.com", "aud": "mobile", "kind": "person"},
        refused={"another kind": {"kind": "machine"}},
        roles=((("app", "role"), {"app": {"role": "anon"}}, "anon"),),
    ),
    "descope": Case(
        provider=provider.descope("P2abc123"),
        issuers=("P2abc123", "https://api.descope.com/P2abc123", "https://api.descope.com/v1/apps/P2abc123"),
        jwks_uri="https://api.descope.com/P2abc123/.well-known/jwks.json",
        claims={
            "iss": "P2abc123",
            "amr": ["email"],
            "drn": "DS",
            "rexp": "2026-12-21T00:00:00Z",
            "dct": "T2abc",
            "tenants": {"T2abc": {"permissions": ["read"], "roles": ["admin"]}},
            "roles": ["admin"],
            "permissions": ["read"],
        },
        also=(
            {"iss": "https://api.descope.com/P2abc123"},
            {"iss": "https://api.descope.com/v1/apps/P2abc123"},
        ),
        refused={
            "refresh token": {"drn": "DSR"},
            "anonymous user": {"danu": True},
            "inbound app": {
                "drn": None,
                "iss": "https://api.descope.com/v1/apps/P2abc123",
                "scope": "openid",
            },
            "another project": {"iss": "P2other"},
            "agentic": {"iss": "https://api.descope.com/v1/apps/agentic/P2abc123/M123"},
        },
        roles=(("roles", {}, "admin"), (("tenants", "T2abc", "roles"), {}, "admin")),
    ),
    "entra": Case(
        provider=provider.entra(TENANT, audience=("00001111-aaaa-2222-bbbb-3333cccc4444", "api://todos")),
        issuers=(f"https://login.microsoftonline.com/{TENANT}/v2.0", f"https://sts.windows.net/{TENANT}/"),
        jwks_uri=f"https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys",
        claims={
            "aud": "00001111-aaaa-2222-bbbb-3333cccc4444",
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "aio": "Y2Rg",
            "azp": "11112222-bbbb-3333-cccc-4444dddd5555",
            "azpacr": "0",
            "oid": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
            "preferred_username": "abeli@contoso.com",
            "rh": "0.",
            "roles": ["admin"],
            "scp": "access_as_user",
            "tid": TENANT,
            "uti": "uti",
            "ver": "2.0",
        },
        header={"x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"},
        also=(
            {"aud": "api://todos", "iss": f"https://sts.windows.net/{TENANT}/", "appid": "a", "ver": "1.0"},
        ),
        refused={
            "ID token": {"scp": None, "nonce": "12345"},
            "application": {"scp": None, "azpacr": "1", "idtyp": "app"},
            "another tenant": {"iss": f"https://login.microsoftonline.com/{uuid4()}/v2.0"},
            "the template": {"iss": "https://login.microsoftonline.com/{tenantid}/v2.0"},
            "Microsoft Graph": {"aud": "00000003-0000-0000-c000-000000000000"},
        },
        roles=(("roles", {}, "admin"), ("roles", {"roles": None}, "authenticated")),
    ),
    "firebase": Case(
        provider=provider.firebase("todos-12345"),
        issuers=("https://securetoken.google.com/todos-12345",),
        jwks_uri=(
            "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
        ),
        claims={
            "iss": "https://securetoken.google.com/todos-12345",
            "aud": "todos-12345",
            "auth_time": 1700000000,
            "user_id": "alice",
            "email": "alice@example.com",
            "email_verified": True,
            "admin": True,
            "role": "admin",
            "firebase": {"identities": {"email": ["alice@example.com"]}, "sign_in_provider": "password"},
        },
        refused={
            "another project": {"iss": "https://securetoken.google.com/evil", "aud": "evil"},
            "another project's audience": {"aud": "evil"},
            "another project's issuer": {"iss": "https://securetoken.google.com/evil"},
            "session cookie": {"iss": "https://session.firebase.google.com/todos-12345"},
        },
        roles=(("role", {}, "admin"),),
    ),
    "google": Case(
        provider=provider.google(client_id="1234987819200.apps.googleusercontent.com"),
        issuers=("https://accounts.google.com", "accounts.google.com"),
        jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
        claims={
            "iss": "https://accounts.google.com",
            "azp": "1234987819200.apps.googleusercontent.com",
            "aud": "1234987819200.apps.googleusercontent.com",
            "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
            "hd": "example.com",
            "email": "alice@example.com",
            "email_verified": True,
            "nonce": "0394852-3190485-2490358",
        },
        also=({"iss": "accounts.google.com"}, {"hd": None}),
        refused={
            "another application": {"aud": "evil.apps.googleusercontent.com"},
            "another application, same presenter": {"aud": ["evil.apps.googleusercontent.com"]},
            "issuer with a slash": {"iss": "https://accounts.google.com/"},
        },
    ),
    "google, an organization": Case(
        provider=provider.google(client_id=("web", "android"), hosted_domain="example.com"),
        issuers=("https://accounts.google.com", "accounts.google.com"),
        jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
        claims={"iss": "https://accounts.google.com", "aud": "android", "hd": "example.com"},
        refused={
            "another organization": {"hd": "evil.example"},
            "only its e-mail address": {"hd": None, "email": "mallory@example.com"},
        },
    ),
    "keycloak": Case(
        provider=provider.keycloak(
            "https://sso.example.com", "todos", audience="todos-api", authorized_parties=("todos-web",)
        ),
        issuers=("https://sso.example.com/realms/todos",),
        jwks_uri="https://sso.example.com/realms/todos/protocol/openid-connect/certs",
        claims={
            "jti": "onrtac:0d6b7b1c",
            "iss": "https://sso.example.com/realms/todos",
            "aud": ["todos-api", "account"],
            "typ": "Bearer",
            "azp": "todos-web",
            "sid": "4c0a3a8a",
            "acr": "1",
            "allowed-origins": ["https://example.com"],
            "realm_access": {"roles": ["default-roles-todos", "offline_access", "admin"]},
            "resource_access": {"todos-api": {"roles": ["anon"]}, "account": {"roles": ["view-profile"]}},
            "scope": "openid profile email",
            "preferred_username": "alice",
        },
        also=({"aud": "todos-api"},),
        refused={
            "ID token": {"typ": "ID", "aud": "todos-web"},
            "ID token for the same audience": {"typ": "ID"},
            "refresh token": {"typ": "Refresh", "aud": "https://sso.example.com/realms/todos"},
            "logout token": {"typ": "Logout"},
            "no type": {"typ": None},
            "account only": {"aud": "account"},
            "another client": {"azp": "evil-web"},
            "another realm": {"iss": "https://sso.example.com/realms/master"},
        },
        roles=(
            (("realm_access", "roles"), {}, "admin"),
            (("resource_access", "todos-api", "roles"), {}, "anon"),
            (("resource_access", "other", "roles"), {}, "authenticated"),
        ),
    ),
    "neon_auth": Case(
        provider=provider.neon_auth("https://ep-xx.neonauth.us-east-2.aws.neon.build/neondb/auth"),
        issuers=("https://ep-xx.neonauth.us-east-2.aws.neon.build",),
        jwks_uri="https://ep-xx.neonauth.us-east-2.aws.neon.build/neondb/auth/.well-known/jwks.json",
        algorithms=("EdDSA",),
        claims={
            "iss": "https://ep-xx.neonauth.us-east-2.aws.neon.build",
            "aud": "https://ep-xx.neonauth.us-east-2.aws.neon.build",
            "name": "Alice",
            "email": "alice@example.com",
            "emailVerified": False,
            "role": "authenticated",
            "banned": False,
            "id": "alice",
            "o": {"id": "org-123", "slug": "my-org", "role": "admin"},
        },
        header={"typ": ""},
        refused={
            "another branch": {"iss": "https://ep-yy.neonauth.us-east-2.aws.neon.build"},
            "issuer with its path": {"iss": "https://ep-xx.neonauth.us-east-2.aws.neon.build/neondb/auth"},
            "anonymous visitor": {"role": "anonymous", "name": None, "email": None, "id": None},
            "no role, which is anonymous in the Data API": {"role": None},
        },
        roles=((("o", "role"), {}, "admin"), (("o", "role"), {"o": None}, "authenticated")),
    ),
    "propelauth": Case(
        provider=provider.propelauth("https://auth.example.com"),
        issuers=("https://auth.example.com",),
        jwks_uri="https://auth.example.com/.well-known/jwks.json",
        claims={
            "iss": "https://auth.example.com",
            "user_id": "alice",
            "email": "alice@example.com",
            "org_member_info": {
                "org_id": "1189c444-8a2d-4c41-8b4b-ae43ce79a492",
                "user_role": "admin",
                "inherited_user_roles_plus_current_role": ["admin", "Member"],
                "user_permissions": ["can_invite"],
            },
        },
        refused={"test environment": {"iss": "https://123.propelauthtest.com"}},
        roles=((("org_member_info", "user_role"), {}, "admin"),),
    ),
    "stack_auth": Case(
        provider=provider.stack_auth("2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11"),
        issuers=("https://api.stack-auth.com/api/v1/projects/2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11",),
        jwks_uri=(
            "https://api.stack-auth.com/api/v1/projects/2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11"
            "/.well-known/jwks.json"
        ),
        algorithms=("ES256",),
        claims={
            "iss": "https://api.stack-auth.com/api/v1/projects/2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11",
            "aud": "2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11",
            "project_id": "2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11",
            "branch_id": "main",
            "refresh_token_id": "r",
            "role": "authenticated",
            "selected_team_id": "t",
            "is_anonymous": False,
        },
        refused={
            "anonymous user": {"aud": "2d0d9b2e-0b4f-4d6c-8a53-5d8a3e9f0c11:anon"},
            "another project": {"iss": "https://api.stack-auth.com/api/v1/projects/evil", "aud": "evil"},
        },
    ),
    "stytch": Case(
        provider=provider.stytch(STYTCH),
        issuers=(f"stytch.com/{STYTCH}",),
        jwks_uri=f"https://test.stytch.com/v1/sessions/jwks/{STYTCH}",
        claims={
            "iss": f"stytch.com/{STYTCH}",
            "aud": [STYTCH],
            "nbf": 1700000000,
            SESSION: {
                "id": "session-test-1",
                "started_at": "2026-11-23T00:00:00Z",
                "authentication_factors": [],
            },
        },
        refused={
            "connected app": {SESSION: None, "client_id": "connected-app-test-1", "scope": "openid"},
            "another project": {"iss": "stytch.com/project-test-evil", "aud": ["project-test-evil"]},
        },
    ),
    "stytch, B2B on a custom domain": Case(
        provider=provider.stytch("project-live-1", domain="login.example.com", b2b=True),
        issuers=("https://login.example.com", "stytch.com/project-live-1"),
        jwks_uri="https://login.example.com/v1/b2b/sessions/jwks/project-live-1",
        claims={
            "iss": "https://login.example.com",
            "aud": ["project-live-1"],
            SESSION: {"id": "member-session-live-1", "roles": ["stytch_member", "admin"]},
            ORGANIZATION: {"organization_id": "organization-live-1", "slug": "acme"},
        },
        also=({"iss": "stytch.com/project-live-1"},),
        roles=(((SESSION, "roles"), {}, "admin"),),
    ),
    "supabase": Case(
        provider=provider.supabase("https://abcdefghijklmnopqrst.supabase.co"),
        issuers=("https://abcdefghijklmnopqrst.supabase.co/auth/v1",),
        jwks_uri="https://abcdefghijklmnopqrst.supabase.co/auth/v1/.well-known/jwks.json",
        algorithms=("ES256", "RS256"),
        claims={
            "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": "session-uuid",
            "email": "alice@example.com",
            "phone": "",
            "is_anonymous": False,
            "app_metadata": {"provider": "email", "role": "admin"},
            "user_metadata": {"name": "Alice", "role": "service_role"},
        },
        also=({"role": "anon"},),
        refused={
            "service_role": {"role": "service_role"},
            "any other role": {"role": "postgres"},
            "anonymous audience": {"aud": "anon"},
            "API key": {"iss": "supabase", "role": "anon", "aud": None},
            "another project": {"iss": "https://evil.supabase.co/auth/v1"},
            "OAuth app": {"client_id": "9a8b7c6d-5e4f-3a2b-1c0d-9e8f7a6b5c4d"},
        },
        roles=((("app_metadata", "role"), {}, "admin"), ("role", {"role": "anon"}, "anon")),
    ),
    "supertokens": Case(
        provider=provider.supertokens("https://api.example.com/auth"),
        issuers=("https://api.example.com/auth",),
        jwks_uri="https://api.example.com/auth/jwt/jwks.json",
        claims={
            "iss": "https://api.example.com/auth",
            "tId": "public",
            "rsub": "alice",
            "sessionHandle": "67e9cf38-8989-418f-836b-5d74f21bbe10",
            "refreshTokenHash1": "b3d1",
            "parentRefreshTokenHash1": None,
            "antiCsrfToken": None,
            "st-role": {"v": ["viewer", "admin"], "t": 1700000000000},
            "st-ev": {"v": True, "t": 1700000000000},
        },
        header={"version": "5"},
        refused={
            "OAuth2 token": {"sessionHandle": None, "stt": 1, "client_id": "c"},
            "a JWT of its own": {"sessionHandle": None},
            "another API": {"iss": "https://evil.example/auth"},
        },
        roles=((("st-role", "v"), {}, "admin"),),
    ),
    "workos": Case(
        provider=provider.workos("client_01ABC123"),
        issuers=("https://api.workos.com/user_management/client_01ABC123",),
        jwks_uri="https://api.workos.com/sso/jwks/client_01ABC123",
        claims={
            "iss": "https://api.workos.com/user_management/client_01ABC123",
            "sid": "session_01HQSXZGF8FHF7A9ZZFCW4387R",
            "jti": "01HQSXZXPPFPKMDD32RKTFY6PV",
            "org_id": "org_01HRDMC6CM357W30QMHMQ96Q0S",
            "role": "admin",
            "roles": ["admin"],
            "permissions": ["posts:read"],
            "entitlements": ["audit-logs"],
        },
        header={"typ": ""},
        refused={
            "another application": {"iss": "https://api.workos.com/user_management/client_evil"},
            "the issuer of older environments": {"iss": "https://api.workos.com"},
            "no session": {"sid": None, "client_id": "client_01ABC123", "scope": "openid"},
        },
        roles=(("role", {}, "admin"), ("roles", {}, "admin")),
    ),
    "workos, a domain of AuthKit": Case(
        provider=provider.workos("client_01ABC123", issuer="https://auth.todos.example"),
        issuers=("https://auth.todos.example",),
        jwks_uri="https://api.workos.com/sso/jwks/client_01ABC123",
        claims={"iss": "https://auth.todos.example", "sid": "session_01HQSXZGF8FHF7A9ZZFCW4387R"},
        also=({"client_id": "client_01ABC123"},),
        refused={
            "Connect application": {
                "aud": "client_01ABC123",
                "client_id": "client_01OTHER",
                "scope": "openid",
                "sid": "app_consent_01HQSX",
            },
        },
    ),
}
