"""Who is calling crosses processes: to a worker of Celery or of multiprocessing, and so do errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from sqla_rls import Caller, ServiceAccess, exc
from sqla_rls.exc import DeclarationError
from sqla_rls.session.principal import principal_key
from tests.support.suite import table

ALICE = Caller(
    role="authenticated",
    subject="alice",
    claims={"org": {"id": 7, "teams": ["a", {"name": "b"}]}, "sid": "1", "ratio": 0.1, "admin": None},
    expires_at=1.5e9,
    per_token_claims=("sid", ("org", "id")),
)
JOB = ServiceAccess(reason="nightly report", role="worker")

TRANSPORTS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.fixture(params=TRANSPORTS.values(), ids=list(TRANSPORTS))
def copying(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("caller", [ALICE, Caller.anonymous(), JOB], ids=["alice", "anonymous", "job"])
def test_a_copy_is_the_same_caller(copying: Callable[[Any], Any], caller: Any) -> None:
    copied = copying(caller)
    assert copied == caller
    assert principal_key(copied) == principal_key(caller)


def test_a_copy_has_all_that_the_caller_has(copying: Callable[[Any], Any]) -> None:
    copied = copying(ALICE)
    assert copied.claims == ALICE.claims
    assert copied.claims_json == ALICE.claims_json
    assert copied.per_token_claims == ALICE.per_token_claims
    assert copied.is_expired(1.5e9)


def test_the_claims_of_a_copy_are_frozen_at_any_depth(copying: Callable[[Any], Any]) -> None:
    copied = copying(ALICE)
    for frozen in (copied.claims, copied.claims["org"], copied.claims["org"]["teams"][1]):
        with pytest.raises(TypeError):
            frozen["id"] = "bob"
    assert isinstance(copied.claims["org"]["teams"], tuple)
    with pytest.raises(AttributeError):
        copied.role = "owner"


@pytest.mark.parametrize("caller", [ALICE, JOB], ids=["alice", "job"])
def test_what_is_unpickled_is_checked(caller: Any) -> None:
    """As after an upgrade that refuses a role that it once took; a forger of pickles can run code anyway."""
    pickled = pickle.dumps(caller).replace(caller.role.encode(), b"none".ljust(len(caller.role), b"\0"))
    with pytest.raises(DeclarationError):
        pickle.loads(pickled)


ERRORS = [
    error
    for error in vars(exc).values()
    if isinstance(error, type) and issubclass(error, exc.RowSecurityError)
    # They wrap an error of the driver.
    if not issubclass(error, exc.AccessDenied)
]


@table("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_errors_cross_processes(copying: Callable[[Any], Any], kind: Any) -> None:
    more = {"statement": "GRANT …"} if kind is exc.AuthSchemaUnusable else {}
    error = kind("it failed: that is why", **more)
    error.add_note("in a worker")
    copied = copying(error)
    assert type(copied) is kind
    assert (str(copied), vars(copied)) == (str(error), vars(error))
