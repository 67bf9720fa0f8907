"""Each known provider: what is pinned, and which tokens of its documented shape are believed.

The claims are those of the page that the provider's docstring names.  The keys are served over HTTP by an
issuer on this machine; everything else is as in production.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from sqla_rls import Verifier, provider
from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.provider import Provider
from sqla_rls.testing.issuer import ALGORITHMS, Issuer, Key
from sqla_rls.tokens.jwks import FetchLimits

TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
STYTCH = "project-test-16d9ba61-97a1-4ba4-9720-b03761dc50c6"
SESSION, ORGANIZATION = "https://stytch.com/session", "https://stytch.com/organization"

STRANGERS = {algorithm: Key.generate(algorithm) for algorithm in ALGORITHMS}

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
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def issuers() -> Iterator[dict[str, Issuer]]:
    """One for each of the table; made once, since RSA keys take a while."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Issuer(imitate=case.provider)) for name, case in CASES.items()}


@pytest.fixture
def issuer(case: Case, issuers: dict[str, Issuer]) -> Issuer:
    issuer = next(issuers[name] for name in CASES if CASES[name] is case)
    issuer.reset()
    return issuer


def token(issuer: Issuer, case: Case, change: Claims | None = None, **options: Any) -> str:
    """As documented, but for *change*: nothing is taken from what the provider expects."""
    claims = dict.fromkeys(["aud", *case.provider.required_claims]) | case.claims | (change or {})
    return issuer.token("alice", claims=claims, headers=case.header, **options)


def test_every_provider_is_in_the_table() -> None:
    functions = {name for name in provider.__all__ if name.islower() and name != "check_role"}

    assert functions == {case.provider.name for case in CASES.values()}


def test_what_is_pinned(case: Case) -> None:
    assert case.provider.issuers == case.issuers
    assert case.provider.jwks_uri == case.jwks_uri
    assert case.provider.algorithms == case.algorithms


def test_a_documented_token_is_believed(issuer: Issuer, case: Case) -> None:
    verifier = Verifier(issuer.provider)

    for change in ({}, *case.also):
        alice = verifier.verify(token(issuer, case, change))
        assert alice.subject == "alice"
        assert alice.role == (
            change.get("role", "authenticated") if case.provider.role_claim else "authenticated"
        )
    assert asyncio.run(verifier.verify_async(token(issuer, case))).subject == "alice"
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_policies_see_its_claims(issuer: Issuer, case: Case) -> None:
    alice = Verifier(issuer.provider).verify(token(issuer, case))

    seen = json.loads(alice.claims_json)
    assert {name: seen.get(name) for name in case.claims} == case.claims


@pytest.mark.exhaustive
def test_what_else_the_provider_signs_is_refused(issuer: Issuer, case: Case) -> None:
    verifier = Verifier(issuer.provider)

    for what, change in case.refused.items():
        with pytest.raises(InvalidToken):
            pytest.fail(f"{what} is accepted as {verifier.verify(token(issuer, case, change))}")


@pytest.mark.exhaustive
def test_its_tokens_are_signed_as_documented(issuer: Issuer, case: Case, subtests: pytest.Subtests) -> None:
    for algorithm in ALGORITHMS:
        issuer.key(algorithm)  # published: nothing but the algorithm speaks against it
        signed = token(issuer, case, algorithm=algorithm)
        with subtests.test(algorithm):
            if algorithm in case.algorithms:
                assert Verifier(issuer.provider).verify(signed)
            else:
                with pytest.raises(InvalidToken, match="algorithm"):
                    Verifier(issuer.provider).verify(signed)


@pytest.mark.exhaustive
def test_shared_secrets_are_refused_with_what_to_do(issuer: Issuer, case: Case) -> None:
    with pytest.raises(InvalidToken, match="use a key pair"):
        Verifier(issuer.provider).verify(
            token(issuer, case, algorithm="HS256", key=b"the legacy secret that a project shares with all")
        )


@pytest.mark.exhaustive
def test_nobody_else_signs_its_tokens(issuer: Issuer, case: Case) -> None:
    stranger = STRANGERS[case.algorithms[0]]
    for key in (stranger, replace(stranger, kid=issuer.key().kid)):
        with pytest.raises(InvalidToken):
            Verifier(issuer.provider).verify(token(issuer, case, key=key))


@pytest.mark.exhaustive
def test_where_tokens_have_an_audience_another_is_refused_and_so_is_none(issuer: Issuer, case: Case) -> None:
    verifier = Verifier(issuer.provider)
    audience = case.provider.audience
    if audience is None:
        assert verifier.verify(token(issuer, case, {"aud": "whatever a template adds"}))
        return

    name = audience if isinstance(audience, str) else audience[0]
    for aud in (
        "other",
        ["other"],
        name + "x",
        name[:-1],
        name.upper() + "!",
        [name + "/"],
        "",
        [],
        None,
        7,
        {name: 1},
    ):
        with pytest.raises(InvalidToken, match=r"aud|another audience"):
            verifier.verify(token(issuer, case, {"aud": aud}))


@pytest.mark.exhaustive
def test_a_token_needs_a_subject_and_an_end(issuer: Issuer, case: Case) -> None:
    for change in ({"sub": None}, {"sub": ""}, {"exp": None}, {"exp": 1700000000}):
        with pytest.raises(InvalidToken):
            Verifier(issuer.provider).verify(token(issuer, case, change))


@pytest.mark.exhaustive
def test_a_refreshed_token_is_of_the_same_person(issuer: Issuer, case: Case) -> None:
    verifier = Verifier(issuer.provider)
    first = verifier.verify(token(issuer, case))
    changes: dict[str, Any] = {"iat": int(time.time()) - 1}
    for claim in issuer.provider.per_token_claims:
        if isinstance(claim, str):
            changes[claim] = "of this token"
        else:
            inner = dict(changes.get(claim[0]) or first.claims[claim[0]])
            changes[claim[0]] = {**inner, claim[1]: "of this token"}
    assert verifier.verify(token(issuer, case, changes)).sign_in() == first.sign_in()
    assert verifier.verify(token(issuer, case, {"tenant": "another"})).sign_in() != first.sign_in()


@pytest.mark.exhaustive
def test_its_role_claims_choose_among_the_configured_roles(issuer: Issuer, case: Case) -> None:
    for role_claim, change, role in case.roles:
        chosen = replace(issuer.provider, role_claim=role_claim, roles=("admin", "anon"))
        assert Verifier(chosen).verify(token(issuer, case, change)).role == role

        other = replace(issuer.provider, role_claim=role_claim, roles=("another",))
        with suppress(InvalidToken):  # unless there is a list, in which the others are passed over
            assert Verifier(other).verify(token(issuer, case, change)).role == "authenticated"


@pytest.mark.exhaustive
def test_several_providers_are_believed_at_once_and_each_for_its_own_tokens_only(
    issuers: dict[str, Issuer],
) -> None:
    names = {case.provider.name: name for name, case in CASES.items()}.values()
    # A slow machine takes longer than the ordinary cooldown for the whole table.
    limits = FetchLimits(lifespan=3600, cooldown=3600)
    verifier = Verifier(
        *(issuers[name].provider for name in names), subjects_are_distinct=True, limits=limits
    )
    for name in names:
        issuers[name].reset()

    for name in names:
        assert verifier.verify(token(issuers[name], CASES[name])).subject == "alice"
        for other in set(names) - {name}:
            with pytest.raises(InvalidToken):
                verifier.verify(token(issuers[name], CASES[other]))
    assert {issuers[name].fetches for name in names} == {1}


# What they are declared with


@pytest.mark.parametrize("names", [None, "", (), " ", ("",)])
@pytest.mark.parametrize(
    ("function", "arguments", "option"),
    [
        (provider.auth0, ["a.example"], "audience"),
        (provider.entra, [TENANT], "audience"),
        (provider.google, [], "client_id"),
        (provider.supabase, ["a.example"], "audience"),
    ],
)
def test_who_shares_keys_can_not_be_made_without_an_audience(
    function: Callable[..., Provider], arguments: list[str], option: str, names: Any
) -> None:
    with pytest.raises(DeclarationError, match=r"required|name"):
        function(*arguments, **{option: names})


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (provider.auth0, ["a.example"]),
        (provider.cognito, ["eu-west-1_A"]),
        (provider.entra, [TENANT]),
        (provider.firebase, []),
        (provider.google, []),
        (provider.keycloak, ["a.example", "todos"]),
    ],
)
def test_what_must_be_decided_must_be_said(function: Callable[..., Provider], arguments: list[str]) -> None:
    with pytest.raises(TypeError, match="required"):
        function(*arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (provider.cognito, ["eu-west-1_A"], {"client_id": ""}),
        (provider.cognito, ["eu-west-1_A"], {"client_id": ()}),
        (provider.cognito, ["eu-west-1_A"], {"client_id": ("",)}),
        (provider.google, [], {"client_id": "a", "hosted_domain": ""}),
        (provider.clerk, ["a.example"], {"authorized_parties": ()}),
        (provider.keycloak, ["a.example", "todos"], {"audience": "a", "authorized_parties": ("",)}),
        (provider.keycloak, ["a.example", "todos"], {"audience": ""}),
    ],
)
def test_nothing_is_left_unchecked_by_an_empty_value(
    function: Callable[..., Provider], arguments: list[str], options: dict[str, Any]
) -> None:
    with pytest.raises(DeclarationError):
        function(*arguments, **options)


@pytest.mark.parametrize(
    "tenant", ["common", "organizations", "consumers", "contoso.onmicrosoft.com", "", None]
)
def test_entra_is_one_tenant(tenant: Any) -> None:
    with pytest.raises(DeclarationError, match="one tenant"):
        provider.entra(tenant, audience="api")


@pytest.mark.parametrize("pool", ["eu-west-1", "_A", "eu-west-1_"])
def test_a_cognito_pool_names_its_region(pool: str) -> None:
    with pytest.raises(DeclarationError, match="region"):
        provider.cognito(pool, client_id=None)


@pytest.mark.parametrize("project", ["abc", "project-prod-abc", "test-project-test-abc"])
def test_a_stytch_project_names_its_environment(project: str) -> None:
    with pytest.raises(DeclarationError, match="project-test-"):
        provider.stytch(project)


IDS: dict[str, Callable[[Any], Provider]] = {
    "cognito": lambda value: provider.cognito(value, client_id=None),
    "descope": provider.descope,
    "firebase": provider.firebase,
    "keycloak": lambda value: provider.keycloak("a.example", value, audience=None),
    "stack_auth": provider.stack_auth,
    "stytch": provider.stytch,
    "workos": provider.workos,
}


NO_IDS: list[Any] = [
    "",
    "a/b",
    "../x",
    "..",
    ".",
    "a..b",
    "a?b",
    "a b",
    "a\n",
    "é",
    "a#b",
    "a%2fb",
    "a@b",
    "a:b",
    "a\\b",
    None,
    7,
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", IDS)
def test_an_id_can_not_lead_elsewhere(name: str, subtests: pytest.Subtests) -> None:
    for value in NO_IDS:
        with subtests.test(value=value):
            with pytest.raises(DeclarationError):
                IDS[name](value)
            with pytest.raises(DeclarationError):
                IDS[name](f"project-test-1_{value}" if isinstance(value, str) and value else value)


HOSTS: dict[str, Callable[[Any], Provider]] = {
    "auth0": lambda value: provider.auth0(value, audience="api"),
    "clerk": provider.clerk,
    "descope": lambda value: provider.descope("P1", base_url=value),
    "keycloak": lambda value: provider.keycloak(value, "todos", audience=None),
    "neon_auth": provider.neon_auth,
    "propelauth": provider.propelauth,
    "stack_auth": lambda value: provider.stack_auth("p1", base_url=value),
    "stytch": lambda value: provider.stytch(STYTCH, domain=value),
    "supabase": provider.supabase,
    "supertokens": provider.supertokens,
    "supertokens's core": lambda value: provider.supertokens("a.example", core_url=value),
}


NO_HOSTS: list[Any] = [
    "",
    "https://",
    "http://a.example",
    "ftp://a.example",
    "file:///etc/passwd",
    "//a.example",
    "a.example//b",
    "a.example/../b",
    "a.example?x=",
    "a.example#x",
    "user@a.example",
    "https://user:secret@a.example",
    "a.example\\@evil.example",
    "a.example evil.example",
    "a.example\n",
    "é.example",
    "a.example:99999",
    7,
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_a_host(name: str, subtests: pytest.Subtests) -> None:
    for value in NO_HOSTS:
        with subtests.test(value=value):
            with pytest.raises(DeclarationError) as problem:
                HOSTS[name](value)
            assert "secret" not in str(problem.value)


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_may_be_given_as_a_url_and_be_this_machine(name: str) -> None:
    assert HOSTS[name]("a.example") == HOSTS[name]("https://a.example") == HOSTS[name]("https://a.example/")
    here = HOSTS[name]("http://127.0.0.1:8000").jwks_uri
    assert str(here).startswith("http://127.0.0.1:8000/")


@pytest.mark.parametrize(
    "name",
    sorted(HOSTS.keys() - {"keycloak", "neon_auth", "stack_auth", "supertokens", "supertokens's core"}),
)
def test_where_no_path_belongs_none_is_accepted(name: str) -> None:
    with pytest.raises(DeclarationError, match="Give a host"):
        HOSTS[name]("https://a.example/path")


def test_some_are_found_under_a_path() -> None:
    assert (
        provider.keycloak("https://a.example/auth", "todos", audience="a").issuer
        == "https://a.example/auth/realms/todos"
    )
    assert provider.supertokens("https://a.example/auth", core_url="http://localhost:3567").jwks_uri == (
        "http://localhost:3567/.well-known/jwks.json"
    )


def test_what_may_be_given_instead() -> None:
    older = provider.workos("client_1", issuer=("https://api.workos.com", "https://api.workos.com/"))

    assert older.issuers == ("https://api.workos.com", "https://api.workos.com/")
    assert provider.stack_auth("p1", audience="other").audience == "other"
    assert provider.neon_auth("a.example/db/auth", audience="other").audience == "other"
    assert provider.keycloak("a.example", "todos", audience="a", algorithms=("ES256",)).algorithms == (
        "ES256",
    )
    assert provider.cognito("eu-west-1_A", client_id=None).required_claims == {"token_use": ("access",)}


def test_supabase_chooses_the_role_still_where_only_the_subject_is_said() -> None:
    found = provider.supabase("a.example", subject_claim=("app_metadata", "user_id"))
    assert found.role_for({"role": "anon"}) == "anon"
    with pytest.raises(InvalidToken):
        found.role_for({"role": "service_role"})


def test_supabase_chooses_no_role_once_you_said_which() -> None:
    for options, role in (
        ({"role": "app"}, "app"),
        ({"role_claim": "x", "roles": ("admin",)}, "authenticated"),
    ):
        typed: Any = options
        assert provider.supabase("a.example", **typed).role_for({"role": "service_role"}) == role
