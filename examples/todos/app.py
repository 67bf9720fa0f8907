"""The application: an HTTP interface to todos and shared lists, SQL over HTTP, and a page.

No endpoint filters by the caller: the session runs as the caller, and the policies of the tables decide.
``uvicorn todos.app:app`` serves it with a database and a Stack Auth project; ``serve.py`` needs neither.
"""

# No "from __future__ import annotations": FastAPI reads those of the functions.
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import CursorResult, delete, make_url, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.routing import Route

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.fastapi import RowSecurity
from sqla_rls.neon_http import sql_endpoint
from todos.database import url, verifier
from todos.lists import List, ListTodo, Member
from todos.models import Todo
from todos.wire import Headers, Report, Reports, on_bind, watch

PAGE: Final = Path(__file__).parent / "page"

POLICIES: Final = text(
    "SELECT tablename, policyname, cmd, permissive, qual, with_check FROM pg_policies "
    "WHERE schemaname = current_schema() AND roles && ARRAY[current_role, 'public']::name[] "
    "ORDER BY tablename, policyname"
)

# psycopg, since SQL over HTTP needs it.
engine = create_async_engine(url.set(drivername="postgresql+psycopg"))
# A login role of its own, since the SQL of a caller can act as the login role, and see its other sessions.
sql_url = make_url(os.environ.get("DATABASE_SQL_URL", url))
sql_engine = create_async_engine(sql_url.set(drivername="postgresql+psycopg"), pool_size=2, max_overflow=3)
watch(engine)
watch(sql_engine)

AsyncSessionLocal = async_sessionmaker(engine)
enforce_row_security(AsyncSessionLocal, verifier=verifier, on_bind=on_bind)
security = RowSecurity(AsyncSessionLocal, verifier)
public = RowSecurity(AsyncSessionLocal, verifier, anonymous=Caller.anonymous())

# A session is closed before the response, so that the report of a request is complete.
SessionDep: TypeAlias = Annotated[AsyncSession, Depends(security.session, scope="function")]
PublicSessionDep: TypeAlias = Annotated[AsyncSession, Depends(public.session, scope="function")]
CallerDep: TypeAlias = Annotated[Caller, Depends(security.caller)]
PublicCallerDep: TypeAlias = Annotated[Caller, Depends(public.caller)]

Text: TypeAlias = Annotated[str, Body(embed=True, min_length=1, max_length=200)]
NewText: TypeAlias = Annotated[str | None, Body(min_length=1, max_length=200)]
NewFlag: TypeAlias = Annotated[bool | None, Body()]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    # The first transaction of each role checks the login role.
    for caller in (Caller.anonymous(), Caller(role="authenticated", subject="nobody")):
        async with AsyncSessionLocal() as session:
            identify(session, caller)
            await session.execute(text("SELECT 1"))
    yield
    await engine.dispose()
    await sql_engine.dispose()


app = FastAPI(title="Todos", lifespan=lifespan)
security.init_app(app)
#: Where people sign in, and those who need no password; ``serve.py`` changes both.
app.state.auth_url = os.environ.get("STACK_BASE_URL", "https://api.stack-auth.com")
app.state.people = ()

reports: OrderedDict[str, Report] = OrderedDict()
app.add_middleware(Reports, kept=reports)
app.add_middleware(
    Headers,
    headers={
        "content-security-policy": f"default-src 'self'; connect-src 'self' {app.state.auth_url}; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    },
)
app.routes.append(Route("/sql", sql_endpoint(sql_engine, verifier, on_bind=on_bind)))


@app.exception_handler(IntegrityError)
async def refuse(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "there is such a row already, or its list is gone"}, 409)


# The todos of one person


@app.get("/api/todos")
async def todos(session: SessionDep) -> list[dict[str, Any]]:
    return [_todo(todo) for todo in await session.scalars(select(Todo).order_by(Todo.id))]


@app.post("/api/todos", status_code=201)
async def add_todo(task: Text, session: SessionDep) -> dict[str, Any]:
    todo = Todo(task=task)
    session.add(todo)
    await session.flush()
    added = _todo(todo)
    await session.commit()
    return added


@app.patch("/api/todos/{id}", status_code=204)
async def change_todo(
    id: int,
    session: SessionDep,
    task: NewText = None,
    is_complete: NewFlag = None,
) -> None:
    await _change(session, update(Todo).where(Todo.id == id), task=task, is_complete=is_complete)


@app.delete("/api/todos/{id}", status_code=204)
async def delete_todo(id: int, session: SessionDep) -> None:
    await _delete(session, delete(Todo).where(Todo.id == id))


# The lists that people share


@app.get("/api/lists")
async def lists(session: PublicSessionDep, caller: PublicCallerDep) -> list[dict[str, Any]]:
    """The lists of the caller and the public ones, with their members and todos."""
    found = (await session.scalars(select(List).order_by(List.id))).all()
    todos = (await session.scalars(select(ListTodo).order_by(ListTodo.id))).all()
    # Anonymous callers have no privilege on the members.
    is_anonymous = caller.role == "anonymous"
    members = [] if is_anonymous else (await session.scalars(select(Member).order_by(Member.user_id))).all()
    return [
        {
            "id": one.id,
            "name": one.name,
            "is_public": one.is_public,
            "members": {m.user_id: m.role for m in members if m.list_id == one.id},
            "todos": [_todo(todo) for todo in todos if todo.list_id == one.id],
        }
        for one in found
    ]


@app.post("/api/lists", status_code=201)
async def add_list(name: Text, session: SessionDep, caller: CallerDep) -> dict[str, int]:
    made = List(name=name)
    session.add(made)
    await session.flush()
    session.add(Member(list_id=made.id, user_id=caller.subject, role="admin"))
    await session.flush()
    id = made.id
    await session.commit()
    return {"id": id}


@app.patch("/api/lists/{id}", status_code=204)
async def change_list(
    id: int,
    session: SessionDep,
    name: NewText = None,
    is_public: NewFlag = None,
) -> None:
    await _change(session, update(List).where(List.id == id), name=name, is_public=is_public)


@app.delete("/api/lists/{id}", status_code=204)
async def delete_list(id: int, session: SessionDep) -> None:
    await _delete(session, delete(List).where(List.id == id))


@app.post("/api/lists/{id}/members", status_code=201)
async def add_member(id: int, user_id: Text, session: SessionDep) -> None:
    session.add(Member(list_id=id, user_id=user_id, role="member"))
    await session.commit()


@app.delete("/api/lists/{id}/members/{user_id}", status_code=204)
async def remove_member(id: int, user_id: str, session: SessionDep) -> None:
    member = delete(Member).where(Member.list_id == id, Member.user_id == user_id)
    await _delete(session, member)


@app.post("/api/lists/{id}/todos", status_code=201)
async def add_list_todo(id: int, task: Text, session: SessionDep) -> dict[str, Any]:
    todo = ListTodo(list_id=id, task=task)
    session.add(todo)
    await session.flush()
    added = _todo(todo)
    await session.commit()
    return added


@app.patch("/api/list-todos/{id}", status_code=204)
async def change_list_todo(
    id: int,
    session: SessionDep,
    task: NewText = None,
    is_complete: NewFlag = None,
) -> None:
    await _change(session, update(ListTodo).where(ListTodo.id == id), task=task, is_complete=is_complete)


@app.delete("/api/list-todos/{id}", status_code=204)
async def delete_list_todo(id: int, session: SessionDep) -> None:
    await _delete(session, delete(ListTodo).where(ListTodo.id == id))


# For the page


@app.get("/api/policies")
async def policies(session: PublicSessionDep) -> list[dict[str, Any]]:
    """The policies for the role of the caller."""
    return [dict(row._mapping) for row in await session.execute(POLICIES)]


@app.get("/api/reports/{name}")
def report(name: str) -> dict[str, Any]:
    """What the database saw of a request; its answer has the name."""
    if name not in reports:
        raise HTTPException(404, "There is no such report")
    return reports[name].as_json()


@app.get("/api/config")
def config() -> dict[str, Any]:
    return {
        "auth_url": app.state.auth_url,
        "project_id": os.environ["STACK_PROJECT_ID"],
        "client_key": os.environ.get("STACK_PUBLISHABLE_CLIENT_KEY", ""),
        "people": app.state.people,
    }


@app.get("/")
def index() -> FileResponse:
    return FileResponse(PAGE / "index.html")


app.mount("/page", StaticFiles(directory=PAGE))


def _todo(todo: Todo | ListTodo) -> dict[str, Any]:
    return {"id": todo.id, "user_id": todo.user_id, "task": todo.task, "is_complete": todo.is_complete}


async def _change(session: AsyncSession, statement: Any, **values: Any) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        raise HTTPException(422, "There is nothing to change")
    await _delete(session, statement.values(given))


async def _delete(session: AsyncSession, statement: Any) -> None:
    # A row that the policies hide is a row that isn't there.
    done = await session.execute(statement)
    if not isinstance(done, CursorResult) or not done.rowcount:
        raise HTTPException(404, "There is no such row for you")
    await session.commit()
