"""SQLModel with FastAPI: each caller has their own todos."""

from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker
from sqlmodel import Field, Session, SQLModel, col, select

from sqla_rls import Verifier, auth, auth_uid, authenticated, crud_policy, enforce_row_security
from sqla_rls.fastapi import add_exception_handlers, bearer_caller, session_of


class TodoIn(SQLModel):
    task: str


class Todo(TodoIn, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(default=None, index=True, sa_column_kwargs={"server_default": auth.user_id()})

    # By its name: a Field has no column yet.
    __table_args__ = (crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),)


def create_app(engine: Engine, verifier: Verifier) -> FastAPI:
    factory = sessionmaker(engine, class_=Session)
    enforce_row_security(factory)
    callers_session = session_of(factory, bearer_caller(verifier))

    app = FastAPI()
    add_exception_handlers(app)

    @app.get("/todos")
    def read(session: Annotated[Session, Depends(callers_session)]) -> list[str]:
        return list(session.exec(select(Todo.task).order_by(col(Todo.id))))

    @app.post("/todos", status_code=201)
    def write(todo: TodoIn, session: Annotated[Session, Depends(callers_session)]) -> None:
        session.add(Todo.model_validate(todo))
        session.commit()

    return app
