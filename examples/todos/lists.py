"""Lists that several people share, beside the todos of one person.

The members of a list see each other and its todos.  Its admins rename it, publish it, and choose its members.
The person who created a list can always become its admin again.  Everyone reads a public list, even without
signing in.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Text,
    and_,
    false,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from sqla_rls import Policy, anonymous, auth, auth_uid, authenticated, member_of, memberships
from todos.models import Base

#: The lists of the caller, or those in which the caller has a role.  Its function bypasses row security.
my_lists = memberships(
    "my_lists",
    Base.metadata,
    group="list_members.list_id",
    user="list_members.user_id",
    role="list_members.role",
    to=authenticated,
)


class List(Base):
    __tablename__ = "lists"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    is_public: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_by: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)

    __table_args__ = (
        Policy(
            "readers",
            "SELECT",
            authenticated,
            using=or_(member_of(id, my_lists()), is_public, auth_uid(created_by)),
        ),
        Policy("public", "SELECT", anonymous, using=is_public),
        Policy("anyone-creates", "INSERT", authenticated, with_check=auth_uid(created_by)),
        Policy("admins-change", "UPDATE", authenticated, using=member_of(id, my_lists("admin"))),
        Policy("admins-delete", "DELETE", authenticated, using=member_of(id, my_lists("admin"))),
    )


class Member(Base):
    __tablename__ = "list_members"

    list_id: Mapped[int] = mapped_column(ForeignKey("lists.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True, index=True)
    role: Mapped[str] = mapped_column(Text, server_default="member")

    __table_args__ = (
        CheckConstraint(role.in_(["admin", "member"]), name="known_role"),
        Policy("colleagues", "SELECT", authenticated, using=member_of(list_id, my_lists())),
        Policy("admins-add", "INSERT", authenticated, with_check=member_of(list_id, my_lists("admin"))),
        # The first admin of a list is the person who created it.
        Policy(
            "creator-begins",
            "INSERT",
            authenticated,
            with_check=and_(
                auth_uid(user_id), member_of(list_id, select(List.id).where(auth_uid(List.created_by)))
            ),
        ),
        Policy("admins-remove", "DELETE", authenticated, using=member_of(list_id, my_lists("admin"))),
        Policy("members-leave", "DELETE", authenticated, using=auth_uid(user_id)),
    )


class ListTodo(Base):
    __tablename__ = "list_todos"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    list_id: Mapped[int] = mapped_column(ForeignKey("lists.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id())
    task: Mapped[str] = mapped_column(Text)
    is_complete: Mapped[bool] = mapped_column(default=False, server_default=false())
    inserted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (
        Policy("members-read", "SELECT", authenticated, using=member_of(list_id, my_lists())),
        Policy(
            "public",
            "SELECT",
            [authenticated, anonymous],
            using=member_of(list_id, select(List.id).where(List.is_public)),
        ),
        Policy(
            "members-write",
            "INSERT",
            authenticated,
            with_check=and_(auth_uid(user_id), member_of(list_id, my_lists())),
        ),
        # A person who has left a list changes nothing in it.
        Policy(
            "authors-change",
            "UPDATE",
            authenticated,
            using=and_(auth_uid(user_id), member_of(list_id, my_lists())),
        ),
        Policy("admins-change", "UPDATE", authenticated, using=member_of(list_id, my_lists("admin"))),
        Policy(
            "authors-delete",
            "DELETE",
            authenticated,
            using=and_(auth_uid(user_id), member_of(list_id, my_lists())),
        ),
        Policy("admins-delete", "DELETE", authenticated, using=member_of(list_id, my_lists("admin"))),
    )
