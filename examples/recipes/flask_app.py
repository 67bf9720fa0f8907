"""Flask-SQLAlchemy: each caller has their own todos."""

from __future__ import annotations

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Text, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import Caller, Verifier, auth, auth_uid, authenticated, crud_policy, enforce_row_security
from sqla_rls.exc import AuthenticationError, KeysUnavailable
from sqla_rls.http import bearer_token, detail, status_and_headers


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Todo(db.Model):
    __tablename__ = "todos"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


def caller() -> Caller:
    """Return the caller of the request; each transaction of db.session calls it at its start."""
    token = bearer_token(request.headers.getlist("Authorization"))
    verifier: Verifier = current_app.config["VERIFIER"]
    return verifier.verify(token)


enforce_row_security(db.session, token=caller)


def create_app(database_url: str, verifier: Verifier) -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    app.config["VERIFIER"] = verifier
    db.init_app(app)

    @app.errorhandler(AuthenticationError)
    @app.errorhandler(KeysUnavailable)
    @app.errorhandler(DBAPIError)
    def refuse(error: Exception) -> ResponseReturnValue:
        # It raises the error itself if it is another one: that is a 500, as without this handler.
        status, headers = status_and_headers(error)
        return {"detail": detail(error)}, status, headers

    @app.get("/todos")
    def read() -> ResponseReturnValue:
        return list(db.session.scalars(select(Todo.task).order_by(Todo.id)))

    @app.post("/todos")
    def write() -> ResponseReturnValue:
        db.session.execute(insert(Todo).values(task=request.get_json()["task"]))
        db.session.commit()
        return {}, 201

    return app
