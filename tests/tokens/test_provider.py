"""What a provider may be declared as, and what is refused before any token is seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.provider import Provider, clerk, custom, stack_auth

SIGNING = ec.generate_private_key(ec.SECP256R1())
PEM = SIGNING.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PRIVATE_PEM = SIGNING.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC_JWK: dict[str, Any] = {**ECAlgorithm.to_jwk(SIGNING.public_key(), as_dict=True), "kid": "one"}
PRIVATE_JWK: dict[str, Any] = {**ECAlgorithm.to_jwk(SIGNING, as_dict=True), "kid": "one"}


def declare(**changes: Any) -> Provider:
    options: dict[str, Any] = {"issuer": "https://auth.example", "algorithms": ("ES256",), "audience": "app"}
    if not {"jwks", "public_key"} & changes.keys():
        options["jwks_uri"] = "https://auth.example/jwks.json"
    options.update(changes)
    return custom(**options)


def test_the_audience_must_be_said_even_where_it_is_none() -> None:
    with pytest.raises(TypeError, match="audience"):
        custom(issuer="https://a", jwks_uri="https://a/jwks", algorithms=("ES256",))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    assert declare(audience=None).audience is None


@pytest.mark.parametrize("audience", ["", " ", (), ("app", ""), ["app"], 7])
def test_an_audience_that_could_match_anything_is_refused(audience: Any) -> None:
    with pytest.raises(DeclarationError, match="audience"):
        declare(audience=audience)


@pytest.mark.parametrize(
    "sources",
    [
        {"jwks_uri": None},
        {"jwks": {"keys": [PUBLIC_JWK]}, "public_key": PEM},
        {"jwks": {"keys": [PUBLIC_JWK]}, "jwks_uri": "https://auth.example/jwks.json"},
    ],
)
def test_keys_come_from_exactly_one_source(sources: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="exactly one"):
        declare(**sources)


@pytest.mark.parametrize("issuer", ["", "   ", None])
def test_an_issuer_is_required(issuer: Any) -> None:
    with pytest.raises(DeclarationError, match="issuer"):
        declare(issuer=issuer)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
def test_shared_secrets_are_refused_with_the_reason(algorithm: str) -> None:
    with pytest.raises(DeclarationError, match="can forge one"):
        declare(algorithms=("ES256", algorithm))


@pytest.mark.parametrize("algorithms", [("none",), ("None",), ("es256",), ("ES256K",), (None,), (), "ES256"])
def test_other_algorithms_are_refused(algorithms: Any) -> None:
    with pytest.raises(DeclarationError, match="algorithm"):
        declare(algorithms=algorithms)


@pytest.mark.parametrize(
    "uri",
    [
        "http://auth.example/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "http://localhost.evil.example/jwks.json",
        "http://128.0.0.1/jwks.json",
        "http://0.0.0.0/jwks.json",
        "http://2130706433/jwks.json",
        "file:///etc/passwd",
        "ftp://127.0.0.1/jwks.json",
        "jwks.json",
        "https://",
        "https:///jwks.json",
        "https://auth.example\\@evil.example/",
        "https://user:secret@auth.example/jwks.json",
        "https://auth.example/jwks.json\n",
        "ht\ntps://auth.example/jwks.json",
        "https://auth.example:99999/jwks.json",
        "",
    ],
)
def test_keys_are_never_fetched_over_a_way_that_others_can_write_on(uri: str) -> None:
    with pytest.raises(DeclarationError, match="jwks_uri") as problem:
        declare(jwks_uri=uri)

    assert "secret" not in str(problem.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9:8080", "localhost:1", "[::1]:8080", "LOCALHOST"])
def test_http_will_do_on_this_machine(host: str) -> None:
    assert declare(jwks_uri=f"http://{host}/jwks.json").jwks_uri


def test_keys_may_be_declared_as_a_document() -> None:
    keys = declare(jwks={"keys": [PUBLIC_JWK]}).key_set()

    assert keys.refresh("one", "ES256") is None
    assert keys.find("one", "ES256") == SIGNING.public_key()
    with pytest.raises(InvalidToken):
        keys.find("two", "ES256")


@pytest.mark.parametrize("pem", [PEM, PEM.decode()])
def test_a_key_may_be_declared_as_pem_and_then_has_no_id(pem: str | bytes) -> None:
    keys = declare(public_key=pem).key_set()

    assert keys.find("whatever the provider calls it", "ES256") == SIGNING.public_key()
    assert keys.find(None, "ES256") == SIGNING.public_key()


def test_a_private_key_is_refused_and_not_repeated() -> None:
    for secret in ({"jwks": {"keys": [PRIVATE_JWK]}}, {"public_key": PRIVATE_PEM}):
        with pytest.raises(DeclarationError, match=r"private key|public key") as problem:
            declare(**secret)

        assert PRIVATE_JWK["d"] not in str(problem.value)
        assert "BEGIN" not in str(problem.value)
        assert problem.value.__cause__ is None


def test_a_symmetric_key_is_refused() -> None:
    with pytest.raises(DeclarationError, match="symmetric"):
        declare(jwks={"keys": [PUBLIC_JWK, {"kty": "oct", "k": "c2VjcmV0"}]})


@pytest.mark.parametrize(
    "pem", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff\xfe"]
)
def test_what_is_no_pem_is_refused(pem: str | bytes) -> None:
    with pytest.raises(DeclarationError, match="PEM"):
        declare(public_key=pem)


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": "x"}, [], {"keys": []}, {"keys": [7, None]}])
def test_what_is_no_key_document_is_refused(document: Any) -> None:
    with pytest.raises(DeclarationError, match="keys"):
        declare(jwks=document)


def test_keys_must_fit_the_algorithms() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()

    with pytest.raises(DeclarationError, match="fits"):
        declare(public_key=PEM, algorithms=("RS256",))
    with pytest.raises(DeclarationError, match="2048"):
        declare(jwks={"keys": [RSAAlgorithm.to_jwk(small, as_dict=True)]}, algorithms=("RS256",))


def test_a_declared_document_can_not_be_changed_afterwards() -> None:
    document = {"keys": [dict(PUBLIC_JWK)]}
    provider = declare(jwks=document)
    document["keys"].clear()

    assert provider.key_set().find("one", "ES256") == SIGNING.public_key()


def test_a_provider_is_a_value() -> None:
    assert stack_auth("p1") == stack_auth("p1")
    assert len({stack_auth("p1"), stack_auth("p1"), declare(jwks={"keys": [PUBLIC_JWK]})}) == 2
    assert clerk("a.example") == clerk("https://a.example/")
    with pytest.raises(AttributeError):
        stack_auth("p1").issuer = "https://evil.example"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_repr_shows_what_is_pinned_and_no_keys() -> None:
    shown = repr(declare(jwks={"keys": [PUBLIC_JWK]})) + repr(declare(public_key=PEM))

    assert "https://auth.example" in shown
    assert "ES256" in shown
    assert PUBLIC_JWK["x"] not in shown
    assert "BEGIN" not in shown
    assert "token=abc" not in repr(declare(jwks_uri="https://auth.example/jwks?token=abc"))


def test_every_verified_token_gets_the_one_role_unless_a_claim_may_choose() -> None:
    provider = declare(role="api_user")

    assert provider.role_for({"role": "postgres"}) == "api_user"


def test_a_claim_chooses_among_the_configured_roles_only() -> None:
    provider = declare(role_claim="role", roles=("authenticated", "admin"))

    assert provider.role_for({"role": "admin"}) == "admin"
    assert provider.role_for({}) == "authenticated"
    for asked in ("postgres", "Admin", "admin ", "", None, {"admin": 1}, 1, True):
        with pytest.raises(InvalidToken) as problem:
            provider.role_for({"role": asked})
        assert "postgres" not in str(problem.value)


def test_of_a_list_the_first_of_the_configured_roles_wins_whatever_its_order() -> None:
    provider = declare(role_claim="groups", roles=("admin", "editor"))

    assert provider.role_for({"groups": ["editor", "admin"]}) == "admin"
    assert provider.role_for({"groups": ["offline_access", "editor"]}) == "editor"
    for groups in ([], ["postgres", "Admin"], [["admin"], {"admin": 1}, None, True]):
        assert provider.role_for({"groups": groups}) == "authenticated"


def test_a_role_claim_may_be_nested() -> None:
    provider = declare(role_claim=("realm_access", "roles"), roles=("admin",))

    assert provider.role_for({"realm_access": {"roles": ["admin"]}}) == "admin"
    assert provider.role_for({"realm_access": {}}) == provider.role_for({}) == "authenticated"
    for asked in ("admin", ["admin"], None, {"roles": None}, {"roles": {"admin": 1}}):
        with pytest.raises(InvalidToken):
            provider.role_for({"realm_access": asked})


def test_the_name_of_a_claim_may_look_like_a_path() -> None:
    provider = declare(role_claim="https://example.com/roles", roles=("admin",))

    assert provider.role_for({"https://example.com/roles": ["admin"]}) == "admin"


@pytest.mark.parametrize(
    "claim",
    [
        "user_metadata",
        ("user_metadata", "role"),
        ("unsafe_metadata", "role"),
        ("untrusted_metadata", "role"),
        ("clientMetadata", "role"),
        ("https://example.com/user_metadata", "role"),
    ],
)
def test_no_role_is_taken_from_what_users_write_themselves(claim: Any) -> None:
    with pytest.raises(DeclarationError, match="write themselves"):
        declare(role_claim=claim, roles=("admin",))


@pytest.mark.parametrize("options", [{"role_claim": "role"}, {"roles": ("admin",)}])
def test_a_role_claim_and_its_roles_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="go together"):
        declare(**options)


@pytest.mark.parametrize(
    "options", [{"role_claim": ("a", ""), "roles": ("admin",)}, {"role_claim": "a", "roles": {"admin"}}]
)
def test_a_role_claim_is_a_name_or_a_path_and_its_roles_are_in_order(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="tuple"):
        declare(**options)


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("external_id", {"external_id": "5"}),
        ("https://example.com/user_id", {"https://example.com/user_id": "5"}),
        (("app_metadata", "user_id"), {"app_metadata": {"user_id": "5"}}),
    ],
)
def test_another_claim_than_sub_may_say_who_it_is(claim: Any, claims: dict[str, Any]) -> None:
    given = {"sub": "user_2x", "provider_sub": "mallory's", **claims}

    assert declare().bound_claims(given) is given
    assert declare(subject_claim=claim).bound_claims(given) == {
        **given,
        "sub": "5",
        "provider_sub": "user_2x",
    }


@pytest.mark.parametrize("found", [None, "", "  ", 5, True, ["5"], {"other": "5"}])
def test_without_a_subject_there_nobody_is_believed(found: Any) -> None:
    for provider, claims in (
        (declare(subject_claim="external_id"), {"sub": "user_2x", "external_id": found}),
        (declare(subject_claim="external_id"), {"sub": "user_2x"}),
        (declare(subject_claim=("app_metadata", "id")), {"sub": "user_2x", "app_metadata": {"id": found}}),
        (declare(subject_claim=("app_metadata", "id")), {"sub": "user_2x", "app_metadata": found}),
        (declare(subject_claim="external_id"), {"sub": "", "external_id": "5"}),
    ):
        with pytest.raises(InvalidToken, match="subject") as problem:
            provider.bound_claims(claims)
        assert "user_2x" not in str(problem.value)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("user_metadata", "write themselves"),
        (("user_metadata", "user_id"), "write themselves"),
        (("unsafe_metadata", "external_id"), "write themselves"),
        ("email", "doesn't identify a caller"),
        ("preferred_username", "doesn't identify a caller"),
        ("Name", "doesn't identify a caller"),
        ("phone_number", "doesn't identify a caller"),
        ("upn", "doesn't identify a caller"),
        ("https://example.com/email", "doesn't identify a caller"),
        ("cognito:username", "doesn't identify a caller"),
        (("profile", "email"), "doesn't identify a caller"),
        ("iss", "doesn't identify a caller"),
        ("sid", "doesn't identify a caller"),
        ("jti", "doesn't identify a caller"),
        ("fva", "per_token_claims"),
        ("sub", "Leave subject_claim out"),
        ("", "subject_claim isn't a name"),
        ((), "subject_claim isn't a name"),
        (("a", ""), "subject_claim isn't a name"),
        (["a"], "subject_claim isn't a name"),
    ],
)
def test_a_claim_that_does_not_identify_a_person_is_no_subject(claim: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        declare(subject_claim=claim, per_token_claims=("fva",))


def test_other_claims_must_hold_what_is_required() -> None:
    provider = declare(required_claims={"typ": ("Bearer", "DPoP"), "sid": (), "sts": ("active", None)})

    provider.check_claims({"typ": "Bearer", "sid": "anything"})
    provider.check_claims({"typ": "DPoP", "sid": 7, "sts": "active"})
    for claims in (
        {"sid": "1"},
        {"typ": "ID", "sid": "1"},
        {"typ": ["Bearer"], "sid": "1"},
        {"typ": "Bearer"},
        {"typ": "Bearer", "sid": None},
        {"typ": "Bearer", "sid": "1", "sts": "pending"},
    ):
        with pytest.raises(InvalidToken, match="'custom'"):
            provider.check_claims(claims)


@pytest.mark.parametrize("values", ["Bearer", ["Bearer"], ("",), (7,)])
def test_required_claims_are_texts(values: Any) -> None:
    with pytest.raises(DeclarationError, match="required_claims"):
        declare(required_claims={"typ": values})


@pytest.mark.parametrize("issuer", [(), ("https://a", ""), ["https://a"]])
def test_each_of_several_issuers_is_a_name(issuer: Any) -> None:
    with pytest.raises(DeclarationError, match="issuer"):
        declare(issuer=issuer)


@pytest.mark.parametrize("role", ["", " ", "none", "public", "x" * 64, "é" * 32, "a\0b", None, 7])
def test_a_role_must_be_a_name_that_postgres_keeps_as_it_is(role: Any) -> None:
    with pytest.raises(DeclarationError, match="role"):
        declare(role=role)
    with pytest.raises(DeclarationError, match="role"):
        declare(role_claim="role", roles=("admin", role))


def test_errors_name_the_provider() -> None:
    with pytest.raises(DeclarationError, match="'partner'"):
        declare(name="partner", issuer="")


def test_a_document_read_from_a_file_will_do() -> None:
    assert declare(jwks=json.loads(json.dumps({"keys": [PUBLIC_JWK]})))
