"""A migration is typed, too: mypy and pyright read this file; nothing runs it."""

from __future__ import annotations

import sqlalchemy as sa

from sqla_rls.alembic import op


def upgrade() -> None:
    op.revoke_public_privileges(["CREATE", "TEMPORARY"])
    op.create_rls_role("authenticated", login=False, member_of=["reporting"])
    op.create_auth_functions()
    op.create_table("todos", sa.Column("id", sa.BigInteger(), primary_key=True))
    op.enable_row_level_security("todos")
    op.create_policy("own", "todos", command="SELECT", roles=["authenticated"], using="id > 0")
    op.grant(["SELECT"], "todos", ["authenticated"])
    with op.without_forced_row_level_security("todos"):
        op.execute("UPDATE todos SET id = id")
    op.create_rls_view("mine", "SELECT id FROM todos")
    op.confirm_exposure("todos", "…", confirmed=True)


def downgrade() -> None:
    op.drop_policy("own", "todos")
    op.drop_table("todos")


op.create_policy("own")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
op.create_policy("own", "todos", roles=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
op.create_polcy("own", "todos")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
