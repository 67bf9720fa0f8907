"""What a migration can say about functions: ``op.create_function(…)``, ``op.drop_function(…)``."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls import ddl_functions
from sqla_rls.alembic.ops import RowSecurityOp
from sqla_rls.objects import SQLFunction, TableKey


class FunctionOp(RowSecurityOp):
    @classmethod
    def create_function(
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
        schema: str | None = None,
    ) -> None:
        """``CREATE OR REPLACE FUNCTION``; *settings* are as in ``"search_path=pg_catalog, pg_temp"``."""
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
        operations.invoke(cls(ddl_functions.CreateFunction(function)))

    @classmethod
    def drop_function(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """``DROP FUNCTION`` of that name, whatever its arguments."""
        operations.invoke(cls(ddl_functions.DropFunction(TableKey(schema, name))))


for _name in ("create_function", "drop_function"):
    Operations.register_operation(_name)(FunctionOp)
