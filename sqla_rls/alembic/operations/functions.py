"""Operations on functions: ``op.create_rls_function(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl import functions as ddl_functions
from sqla_rls.ddl.comments import function_comment
from sqla_rls.snapshot import SQLFunction, TableKey


class FunctionOp(RowSecurityOp):
    @classmethod
    def create_rls_function(
        cls,
        operations: Operations,
        name: str,
        *,
        returns: str,
        body: str,
        arguments: str = "",
        volatility: str = "VOLATILE",
        security_definer: bool = False,
        settings: Sequence[str] = (),
        language: str = "sql",
        parallel: str = "UNSAFE",
        strict: bool = False,
        leakproof: bool = False,
        check_body: bool = True,
        comment: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Create or replace a function.

        The word ``__current_schema__`` in it stands for the schema of new tables.

        Args:
            settings: such as ``"search_path=pg_catalog, pg_temp"``.
            check_body: False if the body reads tables that the migration creates later.  Then call
                ``op.check_rls_function()`` after these tables.
            comment: without it, a replaced function keeps its comment.

        Emits: ``CREATE OR REPLACE FUNCTION``.  For a new function, ``REVOKE EXECUTE … FROM PUBLIC`` in the
            same statement: ``op.grant()`` names those who may execute it.  ``COMMENT ON FUNCTION`` for a
            *comment*.

        Reverse: ``op.drop_rls_function()``; for a replaced function, ``op.create_rls_function()`` with its
        earlier definition.
        """
        function = SQLFunction(
            schema=schema,
            name=name,
            arguments=arguments,
            returns=returns,
            body=body,
            volatility=volatility,
            security_definer=security_definer,
            settings=tuple(settings),
            language=language,
            parallel=parallel,
            strict=strict,
            leakproof=leakproof,
        )
        made = ddl_functions.CreateFunction(function, check_body=check_body)
        operations.invoke(cls(made, *function_comment(function.key, comment)))

    @classmethod
    def check_rls_function(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Check the body of a function that an operation created with ``check_body=False``.

        Emits: ``CREATE OR REPLACE FUNCTION``, with the definition in the database.

        Reverse: none is needed.
        """
        operations.invoke(cls(ddl_functions.CheckFunction(TableKey(schema, name))))

    @classmethod
    def drop_rls_function(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the function of that name.

        Emits: ``DROP FUNCTION``, without arguments.

        Reverse: ``op.create_rls_function()``, and ``op.grant()`` for each grant.
        """
        operations.invoke(cls(ddl_functions.DropFunction(TableKey(schema, name))))


register("create_rls_function", "check_rls_function", "drop_rls_function")(FunctionOp)
