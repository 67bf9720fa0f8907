"""The ASGI application: a token and SQL become the rows of the token's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from sqla_rls.driver import psycopg as driver
from sqla_rls.driver.psycopg_text import (
    ResultTooLarge,
    Statement,
    StatementFailed,
    StatementRefused,
    run,
)
from sqla_rls.exc import AuthenticationError, DeclarationError, KeysUnavailable, TransactionRefused
from sqla_rls.http import bearer_token, detail, status_and_headers
from sqla_rls.neon_http.asgi import Answer, Receive, Send, live, unless_disconnected
from sqla_rls.neon_http.checks import require_separate_callers
from sqla_rls.neon_http.errors import BadRequest
from sqla_rls.neon_http.protocol import (
    Headers,
    Request,
    answer_of,
    error_of,
    read_request,
    refusal_of,
    rows_writer,
    written,
)
from sqla_rls.neon_http.transactions import abandon, commit, driver_connection, undo
from sqla_rls.session.enforce import enforce_row_security, identify
from sqla_rls.session.options import BindHook, BindingOptions, Signing
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.provider import Provider
from sqla_rls.tokens.signing import SigningKey
from sqla_rls.tokens.verifier import Verifier

#: The bytes of a body that takes longer to read than a thread to start.
_LARGE: Final = 64 * 1024
#: The seconds after which a request ends that Postgres hasn't ended at its statement_timeout.
_GRACE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one request.

    Args:
        timeout: the seconds for the request, which has one transaction, and for each statement in it.
        lock_timeout: the seconds that a statement waits for a lock.
        max_request_bytes: the size of the request.
        max_response_bytes: the size of the answer.
        max_rows: the rows of each result; None is no limit.
        max_queries: the queries of a batch.

    Raises:
        DeclarationError: a limit isn't positive.
    """

    timeout: float = 10.0
    lock_timeout: float = 5.0
    max_request_bytes: int = 10 * 1024 * 1024
    max_response_bytes: int = 10 * 1024 * 1024
    max_rows: int | None = None
    max_queries: int = 1000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DeclarationError(f"the limits can't be used: {name}={value!r} isn't positive. Raise it")


class SqlEndpoint:
    """An ASGI application that ``sql_endpoint()`` returns."""

    def __init__(
        self, factory: async_sessionmaker[AsyncSession], verifier: Verifier, options: _Options
    ) -> None:
        self._factory, self._verifier, self._options = factory, verifier, options
        #: The roles that are checked.
        self._checked: set[str] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        if scope["type"] != "http":
            # ASGI closes a WebSocket that nothing accepts.
            await send({"type": "websocket.close"})
            return
        headers = Headers(scope["headers"])
        answer = Answer(headers.all("origin"), self._options.cors_origins)
        if not scope["path"].endswith("/sql") or scope["method"] not in ("POST", "OPTIONS"):
            await answer.send(send, 400, b'"query is not supported"')
        elif scope["method"] == "OPTIONS":
            await answer.send(send, 200, b"", {"allow": "OPTIONS, POST", **answer.preflight()})
        else:
            await self._post(headers, answer, receive, send)

    async def _post(self, headers: Headers, answer: Answer, receive: Receive, send: Send) -> None:
        extra: Mapping[str, str] = {}
        try:
            # The token comes first: without one, not even the body is read.
            caller = await self._verifier.verify_async(bearer_token(headers.all("authorization")))
            body = await self._read(headers, receive)
            if body is None:
                return
            read = partial(read_request, headers, body, max_queries=self._options.limits.max_queries)
            # In a thread, a body with millions of values doesn't stop the event loop.
            request = await asyncio.to_thread(read) if len(body) > _LARGE else read()
            _require_role(request, caller)
            found = await unless_disconnected(self._answer(request, caller), receive)
            if found is None:
                return
            status, body, extra = 200, found, request.echoed
        except KeysUnavailable as error:
            (status, extra), body = status_and_headers(error), refusal_of(detail(error))
        except AuthenticationError as error:
            # The drivers read the body of an answer with this status only.
            status, body = 400, refusal_of(detail(error))
        except StatementFailed as error:
            status, body = self._failure(error)
        except BadRequest as error:
            status, body = error.status, refusal_of(str(error), error.code)
        await answer.send(send, status, body, extra)

    def _failure(self, error: StatementFailed) -> tuple[int, bytes]:
        limit = self._options.limits.max_response_bytes
        # The message may be as long as a value, and holds data.
        if sum(map(len, error.fields.values())) <= limit and len(body := error_of(error.fields)) <= limit:
            return 400, body
        return 507, refusal_of(str(_too_large("response", limit, 507)))

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the body; None if the client has gone."""
        limit = self._options.limits.max_request_bytes
        length = headers.one("content-length") or ""
        # Python converts no number of thousands of digits.
        if length.isascii() and length.isdigit() and (len(length) > 20 or int(length) > limit):
            raise _too_large("request", limit, 413)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(part := message.get("body", b""))
            size += len(part)
            if size > limit:
                raise _too_large("request", limit, 413)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _answer(self, request: Request, caller: Caller) -> bytes:
        is_bound = False
        try:
            async with asyncio.timeout(self._options.limits.timeout + _GRACE), self._factory() as session:
                identify(session, caller)
                connection = await session.connection(execution_options=self._modes(request))
                is_bound = True
                try:
                    return await self._run(session, connection, request, caller)
                except StatementFailed:
                    raise
                except BaseException:
                    # The state of the connection is unknown.
                    await abandon(connection)
                    raise
        except TimeoutError:
            if not is_bound:
                raise _busy() from None
            raise BadRequest(
                "the request was cancelled: it took longer than its time limit. Send a faster query",
                code="57014",
            ) from None
        except exc.TimeoutError:
            raise _busy() from None
        except ResultTooLarge:
            raise _too_large("response", self._options.limits.max_response_bytes, 507) from None
        except StatementRefused as error:
            raise BadRequest(str(error), code=error.sqlstate) from None
        except TransactionRefused as error:
            raise BadRequest(str(error), code="25P01") from None

    def _modes(self, request: Request) -> dict[str, Any]:
        return {**request.modes, **({"postgresql_readonly": True} if self._options.read_only else {})}

    async def _run(
        self, session: AsyncSession, connection: AsyncConnection, request: Request, caller: Caller
    ) -> bytes:
        if caller.role not in self._checked:
            if self._options.check_login_role:
                await require_separate_callers(session)
            self._checked.add(caller.role)
        bound = driver_connection(connection)
        if not isinstance(bound, driver.AsyncConnection) or bound.autocommit:
            raise DeclarationError(
                "the endpoint can't run statements: its engine is in AUTOCOMMIT, or has a creator or a "
                "connection class of its own. Leave them out"
            )
        limits = self._options.limits
        results: list[str] = []
        remaining = limits.max_response_bytes
        try:
            for query in request.queries:
                statement = Statement(
                    sql=query.sql,
                    params=query.params,
                    write=partial(rows_writer, raw=request.raw, array_mode=query.array_mode),
                    max_rows=limits.max_rows,
                    max_size=remaining,
                )
                result = written(await run(bound, statement), array_mode=query.array_mode)
                if (remaining := remaining - len(result)) < 0:
                    raise ResultTooLarge
                results.append(result)
            body = answer_of(request, results)
            if len(body) > limits.max_response_bytes:
                raise ResultTooLarge
            await commit(connection, bound)
        except (StatementFailed, StatementRefused, ResultTooLarge):
            await undo(connection, bound)
            raise
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    limits: Limits
    read_only: bool
    cors_origins: frozenset[str]
    check_login_role: bool


def sql_endpoint(
    engine: AsyncEngine,
    verifier: Verifier | Provider,
    *,
    signing: Signing = "required",
    signing_key: SigningKey | None = None,
    limits: Limits | None = None,
    read_only: bool = False,
    cors_origins: Collection[str] = (),
    settings: Mapping[str, str] | None = None,
    member_of: Mapping[str, Collection[str]] | None = None,
    on_bind: BindHook | None = None,
    check_login_role: bool = True,
) -> SqlEndpoint:
    """Return an ASGI application that runs SQL over HTTP as the owner of the request's bearer token.

    It speaks the protocol of Neon's serverless driver, at a path that ends with ``/sql``.

    Args:
        engine: an engine of psycopg, for this endpoint alone.  It must reach Postgres without a pooler.
        verifier: verifies the tokens.
        signing: "required" makes the database verify the caller.  With "off", the SQL of a caller can become
            any other caller; "auto" is "off" where the database verifies nothing.
        signing_key: the key of ``sqla-rls rotate-key``, as in ``enforce_row_security()``.
        limits: the limits of a request; None is ``Limits()``.
        read_only: run every request in a read-only transaction, for example SQL of a language model.
        cors_origins: the origins whose pages may read the answers, such as ``"https://app.example.com"``;
            ``"*"`` is every origin.
        settings: more settings for every transaction.
        member_of: the roles that a caller's role is a member of on purpose, as in ``BindingOptions``.
        on_bind: a function that audits each transaction, as in ``enforce_row_security()``.
        check_login_role: whether the first request of a role checks the login role: row security must hold
            for it, it must have no privileges of its own, and it must be able to become no other role.

    Raises:
        DeclarationError: an argument is wrong, or the engine isn't one of psycopg for asyncio.
    """
    if not isinstance(engine, AsyncEngine) or engine.dialect.driver != "psycopg":
        raise DeclarationError(
            "the endpoint can't be made: the protocol needs Postgres's texts and descriptions of columns, "
            "which only psycopg exposes. Give create_async_engine('postgresql+psycopg://…')"
        )
    if isinstance(cors_origins, str):
        raise DeclarationError("cors_origins= can't be used: it isn't a list. Give ['https://…']")
    limits = limits or Limits()
    factory = async_sessionmaker(engine)
    timeout = _milliseconds(limits.timeout)
    enforce_row_security(
        factory,
        signing_key=signing_key,
        settings={
            "statement_timeout": timeout,
            "lock_timeout": _milliseconds(limits.lock_timeout),
            "idle_in_transaction_session_timeout": timeout,
            **(settings or {}),
        },
        on_bind=on_bind,
        check_login_role=check_login_role,
        options=BindingOptions(signing=signing, reset="all", member_of=member_of or {}),
    )
    return SqlEndpoint(
        factory,
        verifier if isinstance(verifier, Verifier) else Verifier(verifier),
        _Options(
            limits=limits,
            read_only=read_only,
            cors_origins=frozenset(cors_origins),
            check_login_role=check_login_role,
        ),
    )


def _milliseconds(seconds: float) -> str:
    # 0 is no limit in Postgres, and the longest one is 24 days.
    return f"{round(min(max(seconds * 1000, 1), 2**31 - 1))}ms"


def _require_role(request: Request, caller: Caller) -> None:
    # Not one of the provider's roles: the token decides which of them its owner has.
    if request.role != caller.role:
        raise BadRequest(
            "the request is refused: the user of its connection string isn't the role of its token. "
            "Write that role into the connection string"
        )


def _too_large(name: str, limit: int, status: int) -> BadRequest:
    return BadRequest(f"{name} is too large (max is {limit} bytes)", status=status)


def _busy() -> BadRequest:
    return BadRequest("the request can't run: all connections are in use. Retry later", status=503)
