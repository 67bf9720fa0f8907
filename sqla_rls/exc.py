"""The errors of sqla_rls.

::

    RowSecurityError
    ├── DeclarationError          a declaration or an argument is wrong
    ├── MigrationError            a migration can't run on this database
    │   ├── UnknownRole           a policy or a grant names a missing role
    │   ├── RoleNotPermitted      the migrating role may not create or alter a role
    │   ├── PrivilegeNotPermitted the migrating role may not change a privilege of PUBLIC
    │   ├── ExposureNotConfirmed  the migration would expose a table
    │   ├── AuthSchemaUnusable    the migrating role may not use the functions in schema auth
    │   └── SigningUnavailable    the database has no functions that verify callers
    ├── AnalysisError             a question about access can't be answered
    ├── AuthenticationError       the caller is unknown                        (HTTP 401)
    │   ├── CallerRequired        the session has no caller
    │   └── InvalidToken          the token is refused
    │       └── ExpiredToken      the token or the caller has expired
    ├── AccessDenied              Postgres denies a statement to the caller    (HTTP 403)
    │   ├── RowSecurityViolation  a policy refuses the new row
    │   └── PrivilegeMissing      the role lacks a privilege
    ├── KeysUnavailable           the provider's keys can't be fetched         (HTTP 503)
    ├── SqlOverHttpError          an endpoint of SQL over HTTP refuses a request of a client
    └── BindingError              the caller can't be bound to the transaction (HTTP 500)
        ├── UnsupportedTransaction     AUTOCOMMIT or two-phase
        ├── UnsafeRole                 row security doesn't hold for the role
        ├── SignedBindingUnavailable   the database can't verify a signed caller
        ├── SigningKeyRejected         the signing key is missing or wrong
        ├── CallerChanged              the session holds data of another caller
        │   └── TransactionInProgress  a transaction of another caller is in progress
        └── TransactionRefused         the transaction has no caller

No message holds a token, a key or a claim.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

from sqlalchemy.exc import ArgumentError, DBAPIError, PendingRollbackError, ProgrammingError

#: The page of the documentation with a heading for each error.
ERRORS_PAGE: Final = "https://sqla-rls.github.io/sqla-rls/reference/errors/"


class RowSecurityError(Exception):
    """Base of all errors of this library.  A traceback shows the address of the error's documentation."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        # A note is no part of str(error), which an app may send to its clients.
        self = super().__new__(cls, *args, **kwargs)
        self.add_note(f"See {ERRORS_PAGE}#{cls.__name__.lower()}")
        return self


class DeclarationError(RowSecurityError, ArgumentError):
    """A declaration or an argument is wrong: Postgres or sqla_rls doesn't accept it."""


class MigrationError(RowSecurityError):
    """A migration can't run on this database; the failed operation has changed nothing."""


class UnknownRole(MigrationError):
    """A policy or a grant names a role that the database doesn't have."""


class RoleNotPermitted(MigrationError):
    """The migrating role may not create or alter a role; the message names a role that may."""


class PrivilegeNotPermitted(MigrationError):
    """The migrating role may not change a privilege of PUBLIC.

    The message has the statement to run, and names the role that may run it.
    """


class ExposureNotConfirmed(MigrationError):
    """The migration would expose a table, and its revision doesn't confirm that; the message shows how."""


class AuthSchemaUnusable(MigrationError):
    """The migrating role may not use the functions in schema auth.

    Args:
        message: the text.
        statement: the statement that a superuser must run once in this database.
    """

    def __init__(self, message: str, statement: str) -> None:
        super().__init__(message)
        self.statement = statement

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__() passes only the message.
        return type(self), (self.args[0], self.statement), vars(self)


class SigningUnavailable(MigrationError):
    """The database has no functions that verify callers; the message has the next step."""


class AnalysisError(RowSecurityError):
    """The question about a database can't be answered; the message has the next step."""


class AuthenticationError(RowSecurityError):
    """The caller is unknown."""

    http_status: ClassVar[int] = 401


class CallerRequired(AuthenticationError):
    """The session has no caller."""


class InvalidToken(AuthenticationError):
    """The token is refused: it is malformed, forged, of another issuer, or for another audience."""


class ExpiredToken(InvalidToken):
    """The token has expired, or the caller that a token proved."""


class KeysUnavailable(RowSecurityError):
    """The provider's keys can't be fetched, and the last known keys are too old."""

    http_status: ClassVar[int] = 503


class AccessDenied(RowSecurityError, ProgrammingError):
    """Postgres denies a statement to the caller (SQLSTATE 42501).

    *command* is "SELECT", "INSERT", "UPDATE" or "DELETE"; it is None for SQL text.  *table* is the name of
    the table of INSERT, UPDATE or DELETE, and else None.  ``orig`` is the driver's error.
    """

    http_status: ClassVar[int] = 403
    _reason: ClassVar[str] = "Postgres denies it"

    command: str | None = None
    table: str | None = None

    @classmethod
    def of(
        cls, error: DBAPIError, *, command: str | None, table: str | None, reason: str | None = None
    ) -> AccessDenied:
        """Return *error* as one of this class."""
        named = cls(error.statement, error.params, _driver_error(error), error.hide_parameters)
        named.command, named.table = command, table
        subject = " on ".join(part for part in (command, table) if part) or "the statement"
        named.args = (f"{subject} is denied: {reason or cls._reason}. {named.args[0]}",)
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructor makes the message in args again.
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


class SqlOverHttpError(RowSecurityError):
    """An endpoint of SQL over HTTP refuses a request of a client, or can't be reached.

    *code* is the SQLSTATE of Postgres's error, or None.  *fields* has the other fields of that error, such as
    ``position`` and ``constraint``.  *status* is the HTTP status; None without an answer.
    """

    def __init__(
        self, message: str, *, status: int | None = None, fields: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fields = dict(fields or {})
        self.code: str | None = self.fields.get("code")


class BindingError(RowSecurityError):
    """The caller can't be bound to the transaction; no statement of it has run."""

    http_status: ClassVar[int] = 500


class UnsupportedTransaction(BindingError):
    """No caller can be bound to this kind of transaction, such as AUTOCOMMIT or two-phase."""


class UnsafeRole(BindingError):
    """Row security doesn't hold for the login role, or for the caller's role."""


class SignedBindingUnavailable(BindingError):
    """The database can't verify a signed caller, or a pooler prevents it; the message has the next step."""


class SigningKeyRejected(BindingError):
    """The application has no signing key, or another one than the database."""


class CallerChanged(BindingError):
    """The session holds objects that another caller has loaded or changed."""


class TransactionInProgress(CallerChanged):
    """The caller can't change while this session or another one is bound to another caller."""


class TransactionRefused(BindingError, PendingRollbackError):
    """The transaction has no caller, or has lost it; the session must be rolled back."""
