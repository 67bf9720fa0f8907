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
from dataclasses import replace
from typing import Any

import pytest

from sqla_rls import Verifier, provider
from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.provider import Provider
from sqla_rls.testing.issuer import ALGORITHMS, Issuer, Key
from sqla_rls.tokens.jwks import FetchLimits
from tests.support.suite import table
from tests.tables.known_providers import CASES, STYTCH, TENANT, Case, Claims


@pytest.fixture(scope="module")
def strangers() -> dict[str, Key]:
    return {algorithm: Key.generate(algorithm) for algorithm in ALGORITHMS}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def issuers() -> Iterator[dict[str, Issuer]]:
    """One for each of the table; those with an RSA key have the same, since it takes a while."""
    rsa_key = Key.generate("RS256").private
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sqla_rls.testing.issuer.generate_rsa_key", lambda **options: rsa_key)
            made = {name: stack.enter_context(Issuer(imitate=case.provider)) for name, case in CASES.items()}
        yield made


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
    with pytest.raises(InvalidToken, match="Sign with a key pair"):
        Verifier(issuer.provider).verify(
            token(issuer, case, algorithm="HS256", key=b"the legacy secret that a project shares with all")
        )


@pytest.mark.exhaustive
def test_nobody_else_signs_its_tokens(issuer: Issuer, case: Case, strangers: dict[str, Key]) -> None:
    stranger = strangers[case.algorithms[0]]
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


@pytest.mark.parametrize(
    ("wanted", "claims", "role"),
    [
        (
            provider.neon_auth("a.example/db/auth", role_claim="role", roles=("authenticated", "anonymous")),
            {"role": "anonymous"},
            "anonymous",
        ),
        (provider.supabase("a.example", oauth_clients="app-1"), {"client_id": "app-1"}, "authenticated"),
        (
            replace(provider.auth0("a.example", audience="api"), refused_subjects=()),
            {"sub": "anon@1"},
            "authenticated",
        ),
    ],
    ids=["neon_auth", "supabase", "auth0"],
)
@pytest.mark.exhaustive
def test_visitors_and_oauth_apps_get_in_once_you_said_so(wanted: Provider, claims: Claims, role: str) -> None:
    with Issuer(imitate=wanted) as issuer:
        verifier = Verifier(issuer.provider)
        assert verifier.verify(issuer.token("alice", claims=claims)).role == role
        assert verifier.verify(issuer.token("alice")).role == "authenticated"


@pytest.mark.parametrize("subjects", ["anon@", ("",), ["anon@"]])
@pytest.mark.exhaustive
def test_refused_subjects_are_a_tuple_of_texts(subjects: Any) -> None:
    with pytest.raises(DeclarationError, match="refused_subjects"):
        replace(provider.firebase("p1"), refused_subjects=subjects)


#: The claims of a program's token, and the requirement that only the tokens of people fulfil.
PROGRAMS: dict[str, tuple[Provider, Claims, Any]] = {
    "auth0": (
        provider.auth0("example.eu.auth0.com", audience="api"),
        {"sub": "program@clients", "azp": "program", "gty": "client-credentials"},
        {"gty": (None,)},
    ),
    "cognito": (
        provider.cognito("eu-west-1_AbCdEf", client_id="program"),
        {"sub": "program", "token_use": "access", "client_id": "program"},
        {"username": ()},
    ),
    "keycloak": (
        provider.keycloak("https://login.example.com", "todos", audience="api"),
        {"sub": "b9f5", "azp": "program", "client_id": "program", "typ": "Bearer"},
        {"client_id": (None,)},
    ),
}


@table("name", PROGRAMS)
@pytest.mark.exhaustive
def test_a_token_of_a_program_is_one_of_a_subject_unless_a_claim_is_required(name: str) -> None:
    known, claims, required = PROGRAMS[name]
    with Issuer(imitate=known) as issuer:
        token = issuer.token("alice", claims=claims)
        assert Verifier(issuer.provider).verify(token).subject == claims["sub"]
        people = replace(issuer.provider, required_claims={**known.required_claims, **required})
        with pytest.raises(InvalidToken, match="doesn't accept the value"):
            Verifier(people).verify(token)
