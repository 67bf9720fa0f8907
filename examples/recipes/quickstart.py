import os
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import BigInteger, Identity, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sqla_rls import auth, auth_uid, authenticated, crud_policy, declare_roles, login_role, provider
from sqla_rls.fastapi import RowSecurity


class Base(DeclarativeBase): ...


class Todo(Base):
    __tablename__ = "todos"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)
    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


declare_roles(Base.metadata, login_role("app"))
stack = provider.stack_auth(os.environ["STACK_PROJECT_ID"], base_url=os.environ["STACK_BASE_URL"])
SessionLocal = sessionmaker(create_engine(os.environ["DATABASE_AUTHENTICATED_URL"]))
security = RowSecurity(SessionLocal, stack)
SessionDep = Annotated[Session, Depends(security.session)]
app = FastAPI()
security.init_app(app)


@app.get("/todos")
def todos(session: SessionDep) -> list[str]:
    return list(session.scalars(select(Todo.task)))


@app.post("/todos", status_code=201)
def add_todo(task: str, session: SessionDep) -> None:
    session.add(Todo(task=task))
    session.commit()
