"""FastAPI: the caller of a request, and a session that runs as the caller.

::

    security = RowSecurity(SessionLocal, provider.stack_auth("…"))
    SessionDep = Annotated[Session, Depends(security.session)]
    app = FastAPI()
    security.init_app(app)

    @app.get("/todos")
    def todos(session: SessionDep) -> list[str]:
        return list(session.scalars(select(Todo.task)))
"""

# No "from __future__ import annotations": FastAPI reads those of the inner functions.
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, TypeAlias, TypeVar

import psycopg
from fastapi import Depends, HTTPException, WebSocket
from fastapi.openapi.models import HTTPBearer
from fastapi.responses import JSONResponse
from fastapi.security.base import SecurityBase
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketState

from sqla_rls.exc import AuthenticationError, DeclarationError, KeysUnavailable
from sqla_rls.http import bearer_token, detail, is_denied, status_and_headers
from sqla_rls.session.enforce import enforce_row_security, identify, is_enforced
from sqla_rls.session.options import BindingOptions
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.provider import Provider
from sqla_rls.tokens.verifier import Verifier

CallerDependency: TypeAlias = Callable[..., Caller | Awaitable[Caller]]

_S = TypeVar("_S", bound=Session)
_AS = TypeVar("_AS", bound=AsyncSession)


class bearer_caller(SecurityBase):
    """A dependency that returns the Caller of a request's or WebSocket's bearer token (RFC 6750).

    It answers 401 with WWW-Authenticate to a missing or refused token, and 503 with Retry-After if the
    provider's keys can't be fetched.  In the OpenAPI document it is the security scheme ``HTTPBearer``.

    Args:
        verifier: verifies the token.
        anonymous: the caller of a request without an Authorization header.  None answers it with 401.
    """

    def __init__(self, verifier: Verifier, *, anonymous: Caller | None = None) -> None:
        self.model = HTTPBearer(bearerFormat="JWT")
        self.scheme_name = "HTTPBearer"
        self._verifier, self._anonymous = verifier, anonymous

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """The caller; FastAPI asks once per request."""
        authorization = connection.headers.getlist("authorization")
        # Another scheme, or an empty header, is no reason to take the caller for anonymous.
        if self._anonymous is not None and not authorization:
            return self._anonymous
        try:
            return await self._verifier.verify_async(bearer_token(authorization))
        except (AuthenticationError, KeysUnavailable) as error:
            status, headers = status_and_headers(error)
            raise HTTPException(status, str(error), headers) from None


def session_of(factory: sessionmaker[_S], caller: CallerDependency) -> Callable[..., Iterator[_S]]:
    """Return a dependency: a session that runs as the caller, and is closed after the response.

    Commit in the endpoint: uncommitted changes are rolled back.

    Args:
        factory: a sessionmaker on which row security is enforced.
        caller: a ``bearer_caller``, or a dependency of your own that returns a Caller.

    Raises:
        DeclarationError: the factory is of another kind.
    """
    if not isinstance(factory, sessionmaker):
        raise DeclarationError(_NO_FACTORY.format("session_of", "a sessionmaker", type(factory).__name__))

    def session(caller: Annotated[Caller, Depends(caller)]) -> Iterator[_S]:
        with factory() as session:
            identify(session, caller)
            yield session

    return session


def async_session_of(
    factory: async_sessionmaker[_AS], caller: CallerDependency
) -> Callable[..., AsyncIterator[_AS]]:
    """Return a dependency like that of ``session_of()``, for an async_sessionmaker."""
    if not isinstance(factory, async_sessionmaker):
        raise DeclarationError(
            _NO_FACTORY.format("async_session_of", "an async_sessionmaker", type(factory).__name__)
        )

    async def session(caller: Annotated[Caller, Depends(caller)]) -> AsyncIterator[_AS]:
        async with factory() as session:
            identify(session, caller)
            yield session

    return session


class RowSecurity:
    """The dependencies and error handlers of an app, for one session factory and its providers.

    The attribute ``caller`` is a dependency: the ``Caller`` of the request.  The attribute ``session`` is a
    dependency, too: a session that runs as the caller, and is closed after the response.  An
    ``AsyncSession`` comes from an async_sessionmaker.

    Args:
        factory: a sessionmaker or an async_sessionmaker.  Row security is enforced on it, unless you have
            called ``enforce_row_security()`` before.
        provider: the identity provider, or a ``Verifier``.
        anonymous: the caller of a request without a token.  None answers it with 401.
        options: how the caller is bound, as in ``enforce_row_security()``.

    Raises:
        DeclarationError: the factory is of another kind, or is enforced already and *options* are given.
    """

    def __init__(
        self,
        factory: sessionmaker[Any] | async_sessionmaker[Any],
        provider: Provider | Verifier,
        *,
        anonymous: Caller | None = None,
        options: BindingOptions | None = None,
    ) -> None:
        verifier = provider if isinstance(provider, Verifier) else Verifier(provider)
        self.caller = bearer_caller(verifier, anonymous=anonymous)
        self.session: Callable[..., Iterator[Any] | AsyncIterator[Any]]
        if isinstance(factory, async_sessionmaker):
            self.session = async_session_of(factory, self.caller)
        else:
            self.session = session_of(factory, self.caller)
        if options is not None or not is_enforced(factory):
            enforce_row_security(factory, verifier=verifier, options=options)

    def init_app(self, app: Starlette) -> None:
        """Answer 401, 403 or 503 to errors, by ``add_exception_handlers()``."""
        add_exception_handlers(app)


# A scoped session is one per thread or task, and both serve several requests in turns.
_NO_FACTORY = "{}() failed: it takes {}, which makes a session for each request, not {}. Give a factory"


def add_exception_handlers(app: Starlette) -> None:
    """Answer 401, 403 or 503 to errors of endpoints.

    An AuthenticationError gets 401, since a caller may expire between two transactions of a request.
    KeysUnavailable gets 503.  An error that Postgres denies access (SQLSTATE 42501) gets 403, for example if
    the WITH CHECK of a policy refuses a row.  The log has Postgres's message, and the client hasn't.  An open
    WebSocket is closed with 1008 (policy violation), or 1013 (try again later) instead of 503.  Other errors
    still end in a 500.  Your handlers for wider classes, such as SQLAlchemyError, still get all other errors.
    """

    async def respond(connection: HTTPConnection, error: Any) -> Any:
        status, headers = status_and_headers(error)
        if isinstance(connection, WebSocket) and connection.application_state is WebSocketState.CONNECTED:
            await connection.close(1013 if isinstance(error, KeysUnavailable) else 1008)
            return None
        return JSONResponse({"detail": detail(error)}, status, headers)

    earlier = app.exception_handlers.get(DBAPIError)

    async def respond_if_denied(connection: HTTPConnection, error: Any) -> Any:
        if is_denied(error):
            return await respond(connection, error)
        # In Starlette's order of handlers.  The handler for Exception gets the error that is raised here.
        wider = [app.exception_handlers.get(kind) for kind in DBAPIError.__mro__[1:] if kind is not Exception]
        handler: Any = next((one for one in (earlier, *wider) if one is not None), None)
        if handler is None:
            raise error
        if inspect.iscoroutinefunction(handler):
            return await handler(connection, error)
        return await run_in_threadpool(handler, connection, error)

    answered: list[type[Exception]] = [AuthenticationError, KeysUnavailable, *_raw_denials()]
    for kind in answered:
        app.add_exception_handler(kind, respond)
    app.add_exception_handler(DBAPIError, respond_if_denied)


def _raw_denials() -> Iterator[type[Exception]]:
    """Yield the drivers' own errors, for calls without SQLAlchemy in between, such as COPY."""
    yield psycopg.errors.InsufficientPrivilege
    with suppress(ImportError):
        from asyncpg import InsufficientPrivilegeError

        yield InsufficientPrivilegeError
