"""The principal of a transaction: a caller, or the application itself."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.names import check_role


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccess:
    """Access of the application itself, without a caller, for a job or a repair.

    Args:
        reason: the text that the log shows.
        role: the role of the transaction; None is the login role.

    Raises:
        DeclarationError: the reason is empty, or the role isn't a name of a role.
    """

    reason: str
    role: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise DeclarationError(
                "service access is refused: it has no reason, and the log must show one. Give reason='…'"
            )
        if self.role is not None:
            try:
                check_role(self.role)
            except ValueError as problem:
                raise DeclarationError(f"{problem}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, which checks.
        return partial(type(self), reason=self.reason, role=self.role), ()


Principal: TypeAlias = Caller | ServiceAccess


def principal_key(principal: Principal, names: Sequence[str] | None = None) -> Hashable:
    """Return a key that is equal for all tokens of one sign-in.

    Args:
        principal: the caller, or the service access.
        names: the claims that make up a caller, in addition to ``iss``, ``sub``, ``provider_sub`` and the
            role.  None takes all claims, except those in which two tokens of one sign-in differ.
    """
    if isinstance(principal, ServiceAccess):
        return ServiceAccess, principal.role
    return Caller, principal.role, principal.sign_in(names)


def discard_key(principal: Principal, names: Sequence[str] | None) -> Hashable:
    """Return a key that is equal for transactions of one caller.

    Two callers without a subject may be two people, and have different keys.
    """
    unknown = isinstance(principal, Caller) and principal.subject is None
    return object() if unknown else principal_key(principal, names)
