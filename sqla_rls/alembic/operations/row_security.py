"""Operations on the flags of row security, and the confirmation of exposures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from alembic.operations import Operations
from sqlalchemy.exc import DBAPIError

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.policies import (
    AlterRowSecurity,
    LiftForce,
)
from sqla_rls.exc import ExposureNotConfirmed
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import TableKey

log = autogenerate_log(__name__)

_IN_FAILED_TRANSACTION = "25P02"


class TableOp(RowSecurityOp):
    @classmethod
    def enable_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Enable row security on a table.

        Emits: ``ALTER TABLE … ENABLE ROW LEVEL SECURITY``.

        Reverse: ``op.disable_row_level_security()``.
        """
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "ENABLE")))

    @classmethod
    def disable_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Disable row security on a table.

        Emits: ``ALTER TABLE … DISABLE ROW LEVEL SECURITY``.

        Reverse: ``op.enable_row_level_security()``.
        """
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "DISABLE")))

    @classmethod
    def force_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Apply the policies of a table to its owner, too.

        Emits: ``ALTER TABLE … FORCE ROW LEVEL SECURITY``.

        Reverse: ``op.no_force_row_level_security()``.
        """
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "FORCE")))

    @classmethod
    def no_force_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Stop applying the policies of a table to its owner.

        Emits: ``ALTER TABLE … NO FORCE ROW LEVEL SECURITY``.

        Reverse: ``op.force_row_level_security()``.
        """
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "NO FORCE")))

    @classmethod
    def without_forced_row_level_security(
        cls, operations: Operations, *table_names: str, schema: str | None = None
    ) -> AbstractContextManager[None]:
        """Return a block in which FORCE doesn't bind the owner of the tables, for data migrations.

        ``with op.without_forced_row_level_security("notes"): op.execute(…)``.  The end of the block restores
        FORCE, also after an error, on the tables that had it.  ``ALTER TABLE`` locks each table until the
        transaction ends.  Within ``autocommit_block()``, other sessions of the owner see the tables without
        FORCE, too, and a lost connection leaves them so.

        Emits: ``ALTER TABLE … NO FORCE ROW LEVEL SECURITY``, and at the end ``ALTER TABLE … FORCE ROW LEVEL
        SECURITY``; ``SET CONSTRAINTS ALL IMMEDIATE`` before that, if checks of new rows are deferred.

        Reverse: none is needed, since the end of the block restores FORCE.
        """
        return _lifted(cls, operations, [TableKey(schema, name) for name in table_names])

    @classmethod
    def confirm_exposure(
        cls,
        operations: Operations,
        table_name: str,
        exposure: str,
        *,
        confirmed: bool,
        schema: str | None = None,
    ) -> None:
        """Stop the migration unless the *exposure* of *table_name* is *confirmed*.

        Autogenerate writes False.  Set it to True after you have reviewed the exposure.

        Raises: ExposureNotConfirmed.

        Emits: nothing.

        Reverse: none is needed.
        """
        if not confirmed:
            raise ExposureNotConfirmed(
                f"the migration stopped: it exposes table {table_name}, since {exposure}. If this is "
                "intended, set confirmed=True in its op.confirm_exposure(); otherwise restore the "
                "declaration, and generate the revision again"
            )


@contextmanager
def _lifted(op: type[RowSecurityOp], operations: Operations, tables: Sequence[TableKey]) -> Iterator[None]:
    operations.invoke(op(*(LiftForce(table) for table in tables)))
    restore = op(*(LiftForce(table, restore=True) for table in reversed(tables)))
    try:
        yield
    except BaseException:
        try:
            operations.invoke(restore)
        except DBAPIError as error:
            # A transaction that failed is rolled back, and has lifted nothing.
            if getattr(error.orig, "sqlstate", None) != _IN_FAILED_TRANSACTION:
                log.error(
                    "FORCE ROW LEVEL SECURITY of %s was not restored: %s. Unless the transaction was rolled "
                    "back, run ALTER TABLE … FORCE ROW LEVEL SECURITY for each",
                    ", ".join(table.name for table in tables),
                    error.orig,
                )
        raise
    operations.invoke(restore)


register(
    "enable_row_level_security",
    "disable_row_level_security",
    "force_row_level_security",
    "no_force_row_level_security",
    "without_forced_row_level_security",
    "confirm_exposure",
)(TableOp)
