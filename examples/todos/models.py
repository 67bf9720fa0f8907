"""What there is: todos, each of which belongs to the user who wrote it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Identity, Text, false, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import auth, auth_uid, authenticated, crud_policy, revoke_public_privileges


class Base(DeclarativeBase):
    pass


# The database is the app's alone: nobody but its owner has business making tables and functions in it.
revoke_public_privileges(Base.metadata)


class Todo(Base):
    __tablename__ = "todos"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    task: Mapped[str] = mapped_column(Text)
    is_complete: Mapped[bool] = mapped_column(default=False, server_default=false())
    inserted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)
