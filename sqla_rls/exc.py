"""What can go wrong.

RowSecurityError
├── DeclarationError          a model declares what Postgres, or this library, won't take
├── MigrationError            a migration can't do its work on this database
│   ├── UnknownRole           a policy or a grant names a role that isn't there
│   ├── RoleNotPermitted      who migrates may not make or alter a role so
│   ├── PrivilegeNotPermitted who migrates may not take from PUBLIC what it holds
│   ├── ExposureNotConfirmed  it would expose a table by a declaration that is gone
│   ├── AuthSchemaUnusable    the functions in schema ``auth`` exist and may not be used
│   └── SigningUnavailable    functions that verify callers can't be made here, or there are none
├── AnalysisError             a question about access can't be answered
├── AuthenticationError       who is calling isn't established            (HTTP 401)
│   ├── CallerRequired        the session has no caller
│   └── InvalidToken          the token isn't acceptable
│       └── ExpiredToken      it was, until it expired
├── AccessDenied              Postgres denies a statement to the caller   (HTTP 403)
│   ├── RowSecurityViolation  a policy refuses the new row
│   └── PrivilegeMissing      the role lacks a privilege
├── KeysUnavailable           the provider's keys can't be fetched        (HTTP 503)
└── BindingError              the caller can't be bound to the transaction (HTTP 500)
    ├── UnsupportedTransaction   AUTOCOMMIT or two-phase: nothing can be bound to it
    ├── UnsafeRole               row security doesn't hold for the role
    ├── SignedBindingUnavailable   the database can't verify what would be signed
    ├── SigningKeyRejected       the application has no signing key, or another than the database
    ├── CallerChanged            the caller changes while the session holds what is another's
    │   └── TransactionInProgress   … or while a transaction is bound to another, by this or another session
    └── TransactionRefused       the transaction was refused before; roll back first

No message holds a token, a key or a claim.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy.exc import ArgumentError, DBAPIError, PendingRollbackError, ProgrammingError


class RowSecurityError(Exception):
    """Base of all errors of this library."""


class DeclarationError(RowSecurityError, ArgumentError):
    """A model declares what Postgres, or this library, won't take."""


class MigrationError(RowSecurityError):
    """A migration can't do its work on this database; it has done nothing."""


class UnknownRole(MigrationError):
    """A policy or a grant names a role that the database doesn't have."""


class RoleNotPermitted(MigrationError):
    """The server refuses to make or alter a role for whoever migrates; the message says for whom it would."""


class PrivilegeNotPermitted(MigrationError):
    """What PUBLIC holds isn't for whoever migrates to change; the message says what to run, and as whom."""


class ExposureNotConfirmed(MigrationError):
    """The migration would expose a table, and its revision doesn't confirm that; the message says how."""


class AuthSchemaUnusable(MigrationError):
    """The functions in schema ``auth`` are there, but this role may not use them.

    *statement* is what a superuser must run in this database, once.
    """

    def __init__(self, message: str, statement: str) -> None:
        super().__init__(message)
        self.statement = statement

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own passes the message alone.
        return type(self), (self.args[0], self.statement), vars(self)


class SigningUnavailable(MigrationError):
    """The database can't have functions that verify callers, or has none; the message says what to do."""


class AnalysisError(RowSecurityError):
    """The question about a database can't be answered; the message says what to change."""


class AuthenticationError(RowSecurityError):
    """Who is calling isn't established."""

    http_status: ClassVar[int] = 401


class CallerRequired(AuthenticationError):
    """The session has no caller."""


class InvalidToken(AuthenticationError):
    """The token isn't acceptable: malformed, forged, for somebody else, or of somebody else."""


class ExpiredToken(InvalidToken):
    """The token, or the caller that came of it, has expired."""


class KeysUnavailable(RowSecurityError):
    """The provider's keys can't be fetched, and those last known are too old to trust."""

    http_status: ClassVar[int] = 503


class AccessDenied(RowSecurityError, ProgrammingError):
    """Postgres denies a statement to the caller (SQLSTATE 42501).

    *command* is "SELECT", "INSERT", "UPDATE" or "DELETE", *table* the name of the table.  Both are None for
    SQL text.  ``orig`` is the driver's error.
    """

    http_status: ClassVar[int] = 403
    _reason: ClassVar[str] = "Postgres denies it"

    command: str | None = None
    table: str | None = None

    @classmethod
    def of(cls, error: DBAPIError, *, command: str | None, table: str | None) -> AccessDenied:
        """Return *error* as one of this class."""
        named = cls(error.statement, error.params, _driver_error(error), error.hide_parameters)
        named.command, named.table = command, table
        subject = " on ".join(part for part in (command, table) if part) or "the statement"
        named.args = (f"{subject} is denied: {cls._reason}. {named.args[0]}",)
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        # The message is in args, which the constructor makes anew.
        reduced: Any = super().__reduce__()
        kind, arguments, state = reduced
        return kind, arguments, {**state, "args": self.args, "command": self.command, "table": self.table}


def _driver_error(error: DBAPIError) -> BaseException:
    assert error.orig is not None
    return error.orig


class RowSecurityViolation(AccessDenied):
    """A policy refuses the new row of INSERT or UPDATE.

    The WITH CHECK of no permissive policy is true for the row, or a restrictive policy is false.  The SELECT
    policies must show the new row, too, for INSERT … RETURNING and for UPDATE.  ``sqla-rls why`` tells which.
    """

    _reason = (
        "the new row violates the policies, or the SELECT policies hide it. Ask as the owner: sqla-rls why"
    )


class PrivilegeMissing(AccessDenied):
    """The caller's role lacks a privilege on a table, a column, a schema, a sequence or a function."""

    _reason = "the role lacks a privilege. Declare a policy or a grant for it, and migrate"


class BindingError(RowSecurityError):
    """The caller can't be bound to the transaction; nothing was read or written."""

    http_status: ClassVar[int] = 500


class UnsupportedTransaction(BindingError):
    """The transaction is one to which nothing can be bound: AUTOCOMMIT or two-phase."""


class UnsafeRole(BindingError):
    """Row security doesn't hold for the login role, or for the role that it takes on."""


class SignedBindingUnavailable(BindingError):
    """The database, or the way to it, can't verify a signed caller; the message says what it takes."""


class SigningKeyRejected(BindingError):
    """The application signs with no key, or with another than the database has."""


class CallerChanged(BindingError):
    """The session holds what was loaded or changed as another caller."""


class TransactionInProgress(CallerChanged):
    """The caller can't change while a transaction is bound to another, by this session or another one."""


class TransactionRefused(BindingError, PendingRollbackError):
    """Nothing runs in a transaction to which nobody was bound, until the session is rolled back."""
