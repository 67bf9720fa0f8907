"""Operations on views: ``op.create_rls_view(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Mapping

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl import views as ddl_views
from sqla_rls.ddl.comments import view_comments
from sqla_rls.snapshot import TableKey, View


class ViewOp(RowSecurityOp):
    @classmethod
    def create_rls_view(
        cls,
        operations: Operations,
        name: str,
        definition: str,
        *,
        security_invoker: bool = True,
        security_barrier: bool = False,
        check_option: str | None = None,
        comment: str | None = None,
        column_comments: Mapping[str, str] | None = None,
        schema: str | None = None,
    ) -> None:
        """Create a view.

        Args:
            column_comments: by column; a notice names a column that the view lacks.

        Emits: ``CREATE VIEW … WITH (security_invoker=true) AS definition``, and ``COMMENT ON`` for comments.

        Reverse: ``op.drop_rls_view()``.
        """
        view = View(
            schema=schema,
            name=name,
            definition=definition,
            security_invoker=security_invoker,
            security_barrier=security_barrier,
            check_option=check_option,
        )
        operations.invoke(cls(ddl_views.CreateView(view), *view_comments(view.key, comment, column_comments)))

    @classmethod
    def replace_rls_view(
        cls,
        operations: Operations,
        name: str,
        definition: str,
        *,
        security_invoker: bool = True,
        security_barrier: bool = False,
        check_option: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Replace a view.  It keeps its columns and privileges; new columns come last.

        Emits: ``CREATE OR REPLACE VIEW …``.

        Reverse: ``op.replace_rls_view()`` with the earlier definition.
        """
        view = View(
            schema=schema,
            name=name,
            definition=definition,
            security_invoker=security_invoker,
            security_barrier=security_barrier,
            check_option=check_option,
        )
        operations.invoke(cls(ddl_views.CreateView(view, replace=True)))

    @classmethod
    def drop_rls_view(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop a view.

        Emits: ``DROP VIEW``.

        Reverse: ``op.create_rls_view()``, and ``op.grant()`` for each grant.
        """
        operations.invoke(cls(ddl_views.DropView(TableKey(schema, name))))


register("create_rls_view", "replace_rls_view", "drop_rls_view")(ViewOp)
