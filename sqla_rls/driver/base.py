"""Driver connections that send a binding together with BEGIN, without a round trip of its own.

A connection gets a ``Binding`` for one transaction, and sends it before the first statement.  connect.py
makes an engine open such connections, and server_info.py describes their servers.  One module for each
driver implements them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, TypeAlias

from sqla_rls.exc import BindingError, ExpiredToken
from sqla_rls.tokens import clock

#: How a binding travels.  "with_begin": in one message with BEGIN.  "pipeline": in one exchange with BEGIN
#: and the first statement.  "statement": as a statement of its own.
Transport: TypeAlias = Literal["auto", "with_begin", "pipeline", "statement"]

#: The state of the last caller that a connection drops before the next one: the settings, all that DISCARD
#: ALL discards, or none.
Reset: TypeAlias = Literal["settings", "all", "none"]

_HINTS: Final = {
    "42501": "the login role may not SET ROLE to it. GRANT it to the login role",
    "22023": "there is no such role. Create it, for example with a migration that declares it",
}


#: The setting of the claims as JSON.
CLAIMS: Final = "request.jwt.claims"
#: All claims, and single ones, as functions of other programs read them.
SEPARATE_CLAIMS: Final = (
    "request.jwt.claim",
    *(f"request.jwt.claim.{name}" for name in ("sub", "role", "email")),
)

#: The settings of sqla_rls itself; the application has declared every other one.
_OURS: Final = frozenset(
    {
        *(CLAIMS, *SEPARATE_CLAIMS, "pg_session_jwt.jwt"),
        *("search_path", "seed", "default_transaction_read_only"),
    }
)

RESET: Final = "RESET ALL"
#: The modes that the last caller has left could let it wait.
BEGIN_RESET: Final = "BEGIN ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE"
PATH: Final = "search_path"
#: The other settings that are lists of names.  SET takes a text for one of them as one name.
_OTHER_LISTS: Final = frozenset({"local_preload_libraries", "session_preload_libraries", "temp_tablespaces"})

#: A setting that marks a bound transaction.  Postgres reports each change of it to the client, also the one
#: at COMMIT.  The value has no effect on the transaction in progress.
MARK: Final = "default_transaction_read_only"
ENDED: Final = (
    "the statement can't run: SQL text or the connection has ended the transaction, and its binding with it. "
    "Call the session's rollback() first; to end a transaction, use the session's commit() and rollback()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """The modes of a transaction, as BEGIN has them; None takes the session's default."""

    isolation_level: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None

    def begin(self) -> str:
        """Return the BEGIN statement with these modes."""
        parts = ["BEGIN"]
        if self.isolation_level is not None:
            parts.append(f"ISOLATION LEVEL {self.isolation_level.upper()}")
        if self.read_only is not None:
            parts.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            parts.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class BindingTemplate:
    """The part that all bindings of a connection have in common, and their statements, each spelled once."""

    #: The settings that have a value of their own in each transaction.
    names: tuple[str, ...]
    #: The other settings.
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    #: With modes, BEGIN names them and RESET ALL follows, so that the session's defaults don't count.  After
    #: ``resets_at_end``, neither is necessary.
    modes: Modes | None = None
    #: Whether it holds a token.  pg_stat_activity and logs show statements, but no parameters.
    confidential: bool = False
    #: Whether its token is valid on other connections, too.  Then no statement contains it.
    transferable: bool = False
    #: The value of MARK among the settings.
    mark: str | None = None
    #: Whether ``Binding.literal()`` is SET LOCAL, as ``can_be_set_locally()`` allows.
    sets_locally: bool = False
    #: The settings that a transaction without a binding gets back after a reset.
    unbound: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Whether such a reset includes every setting, as that of a bound transaction does.
    resets_all: bool = True
    #: Whether each transaction may run on another connection of the server.
    pooled: bool = False
    #: Makes the value of "seed", the last one of ``names``, each time that a binding is sent.
    seed: Callable[[], str] | None = None
    #: Whether RESET ALL goes with COMMIT and ROLLBACK.
    resets_at_end: bool = False
    _encoded: dict[str, list[bytes]] = field(init=False, default_factory=dict[str, list[bytes]])

    @cached_property
    def query(self) -> str:
        """The SELECT that makes the settings, with the parameters $1, $2, …"""
        names = ("role", *self.names, *self.fixed)
        return _select({name: f"${number}" for number, name in enumerate(names, start=1)})

    @cached_property
    def encoded_query(self) -> bytes:
        """``query`` in ASCII."""
        return self.query.encode()

    @cached_property
    def client_encoding(self) -> bytes | None:
        """The client encoding among ``fixed``, in ASCII."""
        return self.fixed["client_encoding"].encode() if "client_encoding" in self.fixed else None

    def encoded_fixed(self, encoding: str) -> list[bytes]:
        """Return the values of ``fixed`` in a Python *encoding*."""
        if encoding not in self._encoded:
            self._encoded[encoding] = [value.encode(encoding) for value in self.fixed.values()]
        return self._encoded[encoding]

    def resets(self, *, local: bool) -> list[str]:
        """Return the statements that reset the last caller's role and settings, without a binding.

        Args:
            local: the settings of ``unbound`` end with the transaction.
        """
        # RESET ALL leaves the role.  Postgres resets no seed.
        own = [f"RESET {name}" for name in (*self.names, PATH) if name != "seed"]
        values = {name: f"E'{_escaped(value)}'" for name, value in self.unbound.items()}
        return [
            "RESET ROLE",
            *([RESET] if self.resets_all else own),
            *([_select(values, local=local)] if values else []),
        ]

    @cached_property
    def text(self) -> str:
        """The text of ``Binding.literal()``, with %s for each value of ``Binding.own_values()``."""
        own = dict.fromkeys(self.names, "E'%s'")
        fixed = {name: f"E'{_escaped(value)}'".replace("%", "%%") for name, value in self.fixed.items()}
        role = _set_local("role", "E'%s'")
        if not self.sets_locally:
            # The role comes last, in a statement of its own: pg_stat_statements keeps the values of a
            # statement that begins as one role and ends as another.
            return f"{_select(own | fixed)}; {role}"
        if (path := self.fixed.get(PATH)) is not None:
            fixed[PATH] = _quoted_path(path) or fixed[PATH]
        return "; ".join([role, *(_set_local(name, value) for name, value in (own | fixed).items())])


# Not frozen, though nothing changes it: frozen, it takes longer to make than the rest of a binding.
@dataclass(slots=True, kw_only=True, eq=False)
class Binding:
    """The settings of one transaction, for a driver to send."""

    role: str
    #: The values of ``template.names``, but those of the token and the seed, which come last.
    values: Sequence[str]
    template: BindingTemplate
    #: Makes the token each time that the binding is sent; None without a signature.
    token: Callable[[], str] | None = None
    expires_at: float | None = None  # in seconds since the epoch
    #: DISCARD ALL goes first, unless the connection's last binding had this key; None never discards.
    discard_key: Hashable = None

    def literal(self) -> str:
        """Return SQL that makes the settings and returns none of their values.

        It is SET LOCAL for each setting, or one SELECT for all but the role, which takes twice the time of
        the server.

        Raises:
            ExpiredToken: the caller has expired.
        """
        role, *values = _escaped("\0".join(self.own_values())).split("\0")
        template = self.template
        return template.text % ((role, *values) if template.sets_locally else (*values, role))

    def own_values(self) -> list[str]:
        """Return the role and the values of ``template.names``.  Postgres's texts hold no NUL.

        Raises:
            ExpiredToken: the caller has expired.
        """
        if self.expires_at is not None:
            require_unexpired(self.expires_at)
        values = [self.role, *self.values]
        if self.token is not None:
            values.append(self.token())
        if self.template.seed is not None:
            values.append(self.template.seed())
        return values

    def parameters(self) -> list[str]:
        """Return the parameters of ``template.query``.

        Raises:
            ExpiredToken: the caller has expired.
        """
        return [*self.own_values(), *self.template.fixed.values()]

    def encoded_parameters(self, encoding: str) -> list[bytes]:
        """Return ``parameters()`` in a Python *encoding*.

        Raises:
            ExpiredToken: the caller has expired.
        """
        own = "\0".join(self.own_values()).encode(encoding).split(b"\0")
        return own + self.template.encoded_fixed(encoding)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all settings but the role."""
        return (*self.template.names, *self.template.fixed)

    def refused(self, sqlstate: str | None) -> BindingError:
        """Return the error for the server's answer *sqlstate*."""
        hint = _HINTS.get(sqlstate or "", "the server refused. See the error that caused this one")
        if own := [name for name in self.names if name not in _OURS]:
            hint += f"; or check the settings {', '.join(own)}: the server may refuse one of them"
        return BindingError(f"role {self.role!r} can't be bound: {hint}")

    def __repr__(self) -> str:
        return f"Binding(role={self.role!r})"  # claims are personal


def require_unexpired(expires_at: float | None) -> None:
    """Raise ExpiredToken if *expires_at*, in seconds since the epoch, has passed."""
    if expires_at is not None and expires_at <= clock.now():
        raise ExpiredToken(
            "the caller can't be bound: the token has expired. Verify a fresh token and identify the session "
            "again"
        )


def _escaped(text: str) -> str:
    """Return *text* as it stands in E'…', which has one meaning whatever standard_conforming_strings is."""
    # Claims seldom have one, and a search takes a tenth of the time of replace().
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text.replace("'", "''") if "'" in text else text


def _set_local(name: str, value: str) -> str:
    # A part of a name may be a keyword.
    return 'SET LOCAL "{}" TO {}'.format(name.replace(".", '"."'), value)


def can_be_set_locally(settings: Mapping[str, str], version: int) -> bool:
    """Return whether SET LOCAL can make *settings* on a server of *version*, and nothing keeps their values.

    Before PostgreSQL 18, pg_stat_statements keeps each text of SET LOCAL, with its values.
    """
    return (
        version >= 180000
        and _OTHER_LISTS.isdisjoint(settings)
        and (PATH not in settings or _quoted_path(settings[PATH]) is not None)
    )


def _quoted_path(path: str) -> str | None:
    """Return the schemas of *path*, each quoted; None if one of them isn't a simple name."""
    schemas = [schema.strip() for schema in path.split(",")]
    # Postgres reads a simple name in lower case as itself.
    if all(schema == '"$user"' or _is_simple(schema) for schema in schemas):
        return ", ".join(schema if schema == '"$user"' else f'"{schema}"' for schema in schemas)
    return None


def _is_simple(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name == name.lower()


def _select(values: Mapping[str, str], *, local: bool = True) -> str:
    # Schema-qualified, since the last caller may have left another search_path.  The names are identifiers.
    calls = [f"pg_catalog.set_config('{name}', {value}, {local})" for name, value in values.items()]
    return f"SELECT pg_catalog.num_nulls({', '.join(calls)})"


class NotDiscarded(BindingError):
    """DISCARD ALL has failed on a connection, and the connection is closed."""

    def __init__(self) -> None:
        super().__init__(
            "the state that the last caller left can't be discarded: DISCARD ALL failed, and the connection "
            "was closed. Retry the transaction"
        )


class DriverConnection:
    """A driver's connection that sends bindings."""

    binding: Binding | None = None
    #: The discard key of the last binding that the connection has sent.
    last_discard_key: Hashable = None
    #: Whether all that the last transaction has left is discarded already.
    is_clean: bool = False
    #: The value of MARK for bound transactions; None if the server doesn't report the setting.
    mark: str | None = None
    #: The binding that a statement of its own has made for the transaction in progress.
    executed: Binding | None = None
    #: Whether the driver has ended the transaction of the binding.  Until the session drops the binding, the
    #: connection refuses every statement.
    is_ended: bool = False
    #: The template of the last binding, if the next transaction without a binding must reset what its caller
    #: has left.
    leftovers: BindingTemplate | None = None

    @property
    def idle(self) -> bool:
        """Whether the connection works and is outside a transaction."""
        raise NotImplementedError

    @property
    def is_lost(self) -> bool:
        """Whether the transaction in progress isn't the bound one, by the server's last report."""
        bound = self.binding or self.executed
        if bound is None:
            return False
        if self.is_ended:
            return True
        if bound.template.mark is None or (bound is self.binding and self.idle):
            return False
        return self._reported() != bound.template.mark

    def _reported(self) -> str | None:
        """Return the value of MARK that the server has reported last."""
        raise NotImplementedError

    def _choose_mark(self) -> None:
        reported = self._reported()
        self.mark = None if reported is None else "on" if reported == "off" else "off"

    def queue(self, binding: Binding, transport: Transport) -> bool:
        """Send *binding* with the next transaction; return False if one is in progress already.

        Raises:
            UnsupportedTransaction: the driver doesn't support *transport*.
        """
        raise NotImplementedError

    @property
    def discards(self) -> bool:
        """Whether the connection sends DISCARD ALL before the binding."""
        return self.binding is not None and self.binding.discard_key not in (None, self.last_discard_key)

    def unqueue(self, binding: Binding) -> None:
        """Drop *binding*, if it is queued or belongs to the last transaction."""
        if self.binding is binding or self.executed is binding:
            self.drop()

    def drop(self) -> None:
        """Drop every binding: the transaction has ended for all who share it."""
        self.binding = self.executed = None
        self.is_ended = False
