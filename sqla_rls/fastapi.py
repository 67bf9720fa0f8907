"""FastAPI: who is calling, and a session that runs as them.

::

    caller = bearer_identity(verifier)
    SessionDep = Annotated[Session, Depends(session_of(SessionLocal, caller))]

    @app.get("/todos")
    def todos(session: SessionDep) -> list[str]:
        return list(session.scalars(select(Todo.task)))
"""

# No "from __future__ import annotations": FastAPI reads those of the inner functions.
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls.exc import AuthenticationError, IdentityRequired, KeysUnavailable, RowSecurityError
from sqla_rls.identity import Identity, Verifier
from sqla_rls.session import identify

IdentityDependency = Callable[..., Awaitable[Identity]]

_S = TypeVar("_S", bound=Session)
_AS = TypeVar("_AS", bound=AsyncSession)


def bearer_identity(verifier: Verifier, *, anonymous: Identity | None = None) -> IdentityDependency:
    """A dependency that is the Identity of the request's bearer token (RFC 6750).

    A request without an Authorization header is *anonymous*, if that is given.  Answers 401 with
    WWW-Authenticate for a token that is missing or not believed, 503 where the provider's keys can't be
    had.  In the OpenAPI document it is the security scheme ``HTTPBearer``.
    """
    scheme = HTTPBearer(bearerFormat="JWT", auto_error=False)

    async def identity(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]
    ) -> Identity:
        if credentials is not None:
            try:
                return await verifier.verify_async(credentials.credentials)
            except (AuthenticationError, KeysUnavailable) as error:
                raise _http_exception(error) from None
        # Another scheme is no reason to take the caller for anonymous.
        if anonymous is not None and "authorization" not in request.headers:
            return anonymous
        raise _http_exception(IdentityRequired("send the header Authorization: Bearer <token>"))

    return identity


def session_of(factory: sessionmaker[_S], identity: IdentityDependency) -> Callable[..., Iterator[_S]]:
    """A dependency that is a session of *factory*, which runs as *identity* and is closed after the request.

    Commit in the endpoint: what isn't committed is rolled back.
    """

    def session(identity: Annotated[Identity, Depends(identity)]) -> Iterator[_S]:
        with factory() as session:
            identify(session, identity)
            yield session

    return session


def async_session_of(
    factory: async_sessionmaker[_AS], identity: IdentityDependency
) -> Callable[..., AsyncIterator[_AS]]:
    """The same for asyncio."""

    async def session(identity: Annotated[Identity, Depends(identity)]) -> AsyncIterator[_AS]:
        async with factory() as session:
            identify(session, identity)
            yield session

    return session


def add_exception_handlers(app: FastAPI) -> None:
    """Answer 401, 503 or 500 to an error of this library that an endpoint lets through.

    An identity may expire between two transactions of a request.
    """

    async def respond(request: Request, error: Exception) -> JSONResponse:
        answer = _http_exception(error)
        return JSONResponse({"detail": answer.detail}, answer.status_code, answer.headers)

    app.add_exception_handler(RowSecurityError, respond)


def _http_exception(error: Any) -> HTTPException:
    status: int = getattr(error, "http_status", 500)
    if isinstance(error, IdentityRequired):
        # RFC 6750, section 3.1: without credentials no error code.
        headers = {"WWW-Authenticate": "Bearer"}
    elif status == 401:
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    else:
        headers = {}
    # What went wrong inside is the server's business.
    return HTTPException(status, str(error) if status != 500 else "Internal Server Error", headers)
