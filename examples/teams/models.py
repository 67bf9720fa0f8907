"""Documents of teams: roles within teams, sharing, public rows, a trash, and a support role."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Text,
    UniqueConstraint,
    exists,
    false,
    not_,
    or_,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import (
    Policy,
    Role,
    anonymous,
    auth,
    auth_uid,
    authenticated,
    member_of,
    memberships,
    own_rows,
)
from sqla_rls.analyze.intent import Row as Values
from sqla_rls.analyze.intent import World, everyone, intends, member, owner
from sqla_rls.tokens.caller import Caller


class Base(DeclarativeBase):
    pass


#: The staff: they read everything that isn't in the trash, and change nothing.
support = Role("support")

my_teams = memberships(
    "my_teams",
    Base.metadata,
    group="members.team_id",
    user="members.user_id",
    role="members.role",
    to=authenticated,
)


class Team(Base):
    """Its members see it, and its owners rename it."""

    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Policy("members", "SELECT", authenticated, using=member_of(id, my_teams())),
        Policy("owners", "UPDATE", authenticated, using=member_of(id, my_teams("owner"))),
    )


class Member(Base):
    """Colleagues see each other, and the owners of a team add and remove them."""

    __tablename__ = "members"

    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    role: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Policy("colleagues", "SELECT", authenticated, using=member_of(team_id, my_teams())),
        Policy("owners-add", "INSERT", authenticated, with_check=member_of(team_id, my_teams("owner"))),
        Policy("owners-remove", "DELETE", authenticated, using=member_of(team_id, my_teams("owner"))),
    )


class Document(Base):
    """Its author, its team and the people that it is shared with see it, everyone if it is public.

    In the trash, its author alone sees it.
    """

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"), index=True)
    author: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), index=True)
    body: Mapped[str] = mapped_column(Text)
    is_public: Mapped[bool] = mapped_column(server_default=false())
    in_trash: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (
        UniqueConstraint(id, author),
        Policy(
            "readers",
            "SELECT",
            authenticated,
            using=lambda: or_(
                auth_uid(Document.author),
                member_of(Document.team_id, my_teams()),
                Document.is_public,
                exists().where(Share.document_id == Document.id, auth_uid(Share.user_id)),
            ),
        ),
        Policy("public", "SELECT", anonymous, using=is_public),
        Policy("support", "SELECT", support, using=True),
        Policy(
            "trash",
            "SELECT",
            [authenticated, anonymous, support],
            using=or_(not_(in_trash), auth_uid(author)),
            permissive=False,
        ),
        Policy("write", "INSERT", authenticated, with_check=auth_uid(author)),
        Policy("edit", "UPDATE", authenticated, using=auth_uid(author)),
        Policy("editors", "UPDATE", authenticated, using=member_of(team_id, my_teams("owner", "editor"))),
        Policy("delete", "DELETE", authenticated, using=auth_uid(author)),
    )


class Share(Base):
    """A document that its author shows to a person; the author alone makes and ends it.

    The foreign key makes sure that the person who shares is the author.  A policy that read the documents
    would read the shares in a circle.
    """

    __tablename__ = "shares"

    document_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    shared_by: Mapped[str] = mapped_column(Text, server_default=auth.user_id())

    __table_args__ = (
        ForeignKeyConstraint(["document_id", "shared_by"], ["documents.id", "documents.author"]),
        Policy("mine", "SELECT", authenticated, using=or_(auth_uid(user_id), auth_uid(shared_by))),
        Policy("share", "INSERT", authenticated, with_check=auth_uid(shared_by)),
        Policy("end", "DELETE", authenticated, using=auth_uid(shared_by)),
    )


class Notice(Base):
    """News for everyone; a migration writes them."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    body: Mapped[str] = mapped_column(Text)

    __table_args__ = (Policy("read", "SELECT", [authenticated, anonymous, support], using="true"),)


class Draft(Base):
    """Of one person."""

    __tablename__ = "drafts"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text)

    __table_args__ = (own_rows("user_id"),)


# The policies of these have no intent of their own: they are SQL text, or expressions with EXISTS.
intends(Notice, "SELECT", role=[authenticated, anonymous, support], rows=everyone)


@intends(Document, "SELECT", role=authenticated)
def may_read(caller: Caller, row: Values, world: World) -> bool:
    if is_author(caller, row, world):
        return True
    shared = any(
        share["document_id"] == row["id"] and share["user_id"] == caller.subject for share in world["shares"]
    )
    return not row["in_trash"] and (shared or row["is_public"] or is_in_team(caller, row, world))


@intends(Share, "INSERT", role=authenticated)
def may_share(caller: Caller, row: Values, world: World) -> bool:
    mine = any(
        document["id"] == row["document_id"] and document["author"] == caller.subject
        for document in world["documents"]
    )
    return mine and row["shared_by"] == caller.subject


is_author = owner("author")
is_in_team = member(Member, column="team_id", group="team_id", user="user_id")
