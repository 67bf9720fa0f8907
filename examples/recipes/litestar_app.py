"""Litestar with advanced-alchemy: each caller has their own todos."""

from __future__ import annotations

from typing import Any

from advanced_alchemy.base import BigIntBase
from advanced_alchemy.exceptions import RepositoryError
from advanced_alchemy.extensions.litestar import AsyncSessionConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from advanced_alchemy.extensions.litestar.exception_handler import exception_to_http_response
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions.responses import create_exception_response
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody
from sqlalchemy import Text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapped, mapped_column

from sqla_rls import Verifier, auth, auth_uid, authenticated, crud_policy, enforce_row_security, identify
from sqla_rls.exc import AuthenticationError, KeysUnavailable
from sqla_rls.http import bearer_token, detail, is_denied, status_and_headers


class Todo(BigIntBase):
    __tablename__ = "todos"

    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class TodoRepository(SQLAlchemyAsyncRepository[Todo]):
    model_type = Todo


async def provide_todos(db_session: NamedDependency[AsyncSession]) -> TodoRepository:
    return TodoRepository(session=db_session)


@get("/todos")
async def read(todos: NamedDependency[TodoRepository]) -> list[str]:
    return [todo.task for todo in await todos.get_many(order_by=Todo.id.asc())]


@post("/todos")
async def write(data: JSONBody[dict[str, str]], todos: NamedDependency[TodoRepository]) -> None:
    await todos.add(Todo(task=data["task"]), auto_commit=True)


def refuse(request: Request[Any, Any, Any], error: Any) -> Response[dict[str, str]]:
    status, headers = status_and_headers(error)
    return Response({"detail": detail(error)}, status_code=status, headers=headers)


def refuse_if_denied(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
    """Answer 403 where Postgres denies, and other errors as without this handler."""
    if is_denied(error):
        return refuse(request, error)
    if isinstance(error, RepositoryError):
        return exception_to_http_response(request, error)
    return create_exception_response(request, error)


def create_app(engine: AsyncEngine, verifier: Verifier) -> Litestar:
    alchemy = SQLAlchemyAsyncConfig(
        engine_instance=engine, session_config=AsyncSessionConfig(expire_on_commit=False)
    )
    factory = alchemy.create_session_maker()
    assert isinstance(factory, async_sessionmaker)
    enforce_row_security(factory)

    async def identify_caller(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Give the request's db_session its caller, as a guard."""
        token = bearer_token(connection.headers.getall("authorization", []))
        session = alchemy.provide_session(connection.app.state, connection.scope)
        identify(session, await verifier.verify_async(token))

    return Litestar(
        [read, write],
        plugins=[SQLAlchemyPlugin(alchemy)],
        guards=[identify_caller],
        dependencies={"todos": Provide(provide_todos)},
        exception_handlers={
            AuthenticationError: refuse,
            KeysUnavailable: refuse,
            RepositoryError: refuse_if_denied,
            DBAPIError: refuse_if_denied,
        },
    )
