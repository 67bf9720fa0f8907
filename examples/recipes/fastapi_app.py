"""FastAPI under asyncio: each caller has their own todos."""

from typing import Annotated

from fastapi import Body, Depends, FastAPI
from sqlalchemy import Text, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import Verifier, auth, auth_uid, authenticated, crud_policy, enforce_row_security
from sqla_rls.fastapi import add_exception_handlers, async_session_of, bearer_caller


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todos"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


def create_app(engine: AsyncEngine, verifier: Verifier) -> FastAPI:
    factory = async_sessionmaker(engine)
    enforce_row_security(factory)
    callers_session = async_session_of(factory, bearer_caller(verifier))

    app = FastAPI()
    add_exception_handlers(app)

    @app.get("/todos")
    async def read(session: Annotated[AsyncSession, Depends(callers_session)]) -> list[str]:
        return list(await session.scalars(select(Todo.task).order_by(Todo.id)))

    @app.post("/todos", status_code=201)
    async def write(
        task: Annotated[str, Body(embed=True)], session: Annotated[AsyncSession, Depends(callers_session)]
    ) -> None:
        session.add(Todo(task=task))
        await session.commit()

    return app
