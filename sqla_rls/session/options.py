"""The options of ``enforce_row_security()``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Pool
from sqlalchemy.orm import Session

from sqla_rls.driver.base import SEPARATE_CLAIMS, Reset, Transport
from sqla_rls.exc import DeclarationError
from sqla_rls.session.denials import DenialCallback
from sqla_rls.session.principal import Principal
from sqla_rls.tokens.caller import Caller

if TYPE_CHECKING:
    from sqla_rls.tokens.signing import SigningKey
    from sqla_rls.tokens.verifier import Verifier

#: Whether the database verifies who has signed the claims, or trusts the application.
Signing: TypeAlias = Literal["auto", "off", "required"]

_Answer: TypeAlias = str | Caller | None
TokenCallback: TypeAlias = Callable[[], _Answer | Awaitable[_Answer]]
BindHook: TypeAlias = Callable[[Session, Connection, Principal], object]

#: Settings that the binding makes itself, or the driver.
_TAKEN: Final = frozenset(
    {
        *("client_encoding", "pg_session_jwt.jwt", "request.jwt.claims", "role", "session_authorization"),
        *SEPARATE_CLAIMS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingOptions:
    """How a session binds its caller to a transaction.

    Args:
        signing: "required" makes the database verify the caller, so that injected SQL can't become another
            caller.  It needs the extension pg_session_jwt and a direct connection of psycopg or asyncpg, or
            ``op.create_auth_functions(signed=True)`` and its key.  "off" makes the database trust the
            application.  "auto" takes the strongest that a connection offers, and logs it once at INFO.
        transport: "with_begin" (psycopg, asyncpg) sends the binding in one message with BEGIN.  "pipeline"
            (psycopg, asyncpg) sends it in one exchange with BEGIN and the first statement.  "statement" (any
            driver) sends it as a statement of its own.  "auto" takes the first of pipeline, with_begin and
            statement that the driver has.
        reset: "settings" resets the settings that the last caller left.  The search_path ends with pg_temp.
            The transports "with_begin" and "pipeline" send RESET ALL with the end of a transaction.  Where it
            wasn't the last statement, it follows BEGIN, which has explicit modes.
            "all" prepares no statement, and sends DISCARD ALL before the transaction of another caller, in a
            round trip of its own.  It needs a direct connection of psycopg or asyncpg.  "none" resets
            nothing.
        set_role: the login role switches to the caller's role (``SET LOCAL ROLE``).  Without it, the login
            role must be the caller's role.
        member_of: the roles of policies that a caller's role is a member of on purpose, by the caller's
            role: ``{"admin": ["editor"]}``.  Its callers get the policies of these roles.  Any other such
            membership raises UnsafeRole, except one in ``authenticated`` or ``anonymous``.
        principal_claims: the claims by which a session tells two callers apart, in addition to ``iss``,
            ``sub`` and the role.  None takes all claims, except those in which two tokens of one sign-in
            differ, such as ``exp``.
        explain_denials: adds the answer of ``sqla-rls why`` to the messages of RowSecurityViolation and
            PrivilegeMissing, for development: ``sqla_rls.analyze.DenialExplainer(owner_engine)``.  The answer
            has values of rows that the caller can't see.

    Raises:
        DeclarationError: an option has a value that isn't listed here, or two options contradict each other.
    """

    signing: Signing = "auto"
    transport: Transport = "auto"
    reset: Reset = "settings"
    set_role: bool = True
    member_of: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    principal_claims: Sequence[str] | None = None
    explain_denials: DenialCallback | None = None

    def __post_init__(self) -> None:
        for name, choices in (("signing", Signing), ("transport", Transport), ("reset", Reset)):
            _require_choice(name, getattr(self, name), get_args(choices))
        if not isinstance(self.set_role, bool):
            raise DeclarationError(
                f"set_role={self.set_role!r} can't be used: it isn't a bool. Give True or False"
            )
        if not isinstance(self.member_of, Mapping) or not all(
            isinstance(role, str) and _is_names(of) for role, of in self.member_of.items()
        ):
            raise DeclarationError(
                "member_of= can't be used: it isn't a mapping of roles to lists of roles. "
                "Give {'admin': ['editor']}, for example"
            )
        if self.principal_claims is not None and not _is_names(self.principal_claims):
            raise DeclarationError(
                "principal_claims= can't be used: it isn't a list of names. Give ['org_id'], for example"
            )
        if self.explain_denials is not None and not callable(self.explain_denials):
            raise DeclarationError(
                "explain_denials= can't be used: sqla_rls has no connection of the owner. "
                "Give sqla_rls.analyze.DenialExplainer(owner_engine)"
            )
        if self.reset == "all" and (self.transport == "statement" or not self.set_role):
            raise DeclarationError(
                "the options contradict each other: reset='all' sends DISCARD ALL before BEGIN, and "
                "transport='statement' and set_role=False can't. Leave out both, or give reset='settings'"
            )


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise DeclarationError(
            f"{name}={value!r} can't be used: there is no such option. Give one of {listed}"
        )


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, Collection)
        and not isinstance(value, str)
        and all(isinstance(name, str) for name in value)
    )


@dataclass(slots=True)
class PoolFacts:
    """The facts that the sessions of one factory know of a pool."""

    #: Whether the pool was checked before its first caller.
    is_known: bool = False
    #: The roles for which row security holds on its connections.
    safe: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class SessionOptions:
    """The arguments of ``enforce_row_security()``, and the facts that its sessions know of their pools."""

    binding: BindingOptions = field(default_factory=BindingOptions)
    verifier: Verifier | None = None
    token: TokenCallback | None = None
    signing_key: SigningKey | None = field(default=None, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    check_login_role: bool = True
    on_bind: BindHook | None = None
    pools: WeakKeyDictionary[Pool, PoolFacts] = field(default_factory=WeakKeyDictionary[Pool, PoolFacts])

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if not re.fullmatch(r"[A-Za-z_][\w$.]*", name, re.ASCII) or not isinstance(value, str):
                raise DeclarationError(
                    f"settings= can't be used: {name!r}: {value!r} isn't a name of a setting and text. "
                    "Give {'statement_timeout': '10s'}, for example"
                )
            if name.lower() in _TAKEN:
                raise DeclarationError(
                    f"settings= can't be used: {name} belongs to the driver or to the binding. Leave it out; "
                    "for client_encoding, use the argument of the driver"
                )
        # Postgres ignores the case of these names.
        lowered = {name.lower(): value for name, value in self.settings.items()}
        object.__setattr__(self, "settings", lowered)

    @property
    def goes_with_begin(self) -> bool:
        """Whether a binding goes with BEGIN, if the connection can send it so."""
        return self.binding.transport != "statement" and self.binding.set_role
