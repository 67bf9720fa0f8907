"""Short forms of other declarations: ``own_rows("user_id")``, ``CallerId``, ``login_role("app")``."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from uuid import UUID

from sqlalchemy import Text, Uuid
from sqlalchemy.orm import mapped_column

from sqla_rls.declare.auth import auth
from sqla_rls.declare.base import Roles, anonymous, authenticated
from sqla_rls.declare.expressions import ColumnArgument, auth_uid
from sqla_rls.declare.policies import crud_policy
from sqla_rls.snapshot import Role

#: The caller's id as text, for ``user_id: Mapped[CallerId]``: indexed, and by default the inserting caller's.
CallerId: TypeAlias = Annotated[str, mapped_column(Text, server_default=auth.user_id(), index=True)]
#: The same for ids that are UUIDs.
CallerUuid: TypeAlias = Annotated[UUID, mapped_column(Uuid, server_default=auth.uid(), index=True)]


def own_rows(column_: ColumnArgument, *, role: Roles = authenticated) -> crud_policy:
    """Return the policies by which callers read and modify their own rows, and no others.

    It is ``crud_policy(role, read=auth_uid(column), modify=auth_uid(column))``.

    Args:
        column_: the column with the caller's id, or its name; as for ``auth_uid()``.
        role: the role of the callers, or several.

    Emits:
        The statements of ``crud_policy()``
    """
    own = auth_uid(column_)
    return crud_policy(role, read=own, modify=own)


def login_role(name: str) -> Role:
    """Return the role of an app: LOGIN, NOINHERIT, member of ``authenticated`` and ``anonymous``.

    Pass it to ``declare_roles()``.  It has no password: ``sqla-rls set-password`` sets one.  It has no
    privileges until a session takes on the role of a caller.
    """
    return Role(name, login=True, inherit=False, member_of=[authenticated, anonymous])
