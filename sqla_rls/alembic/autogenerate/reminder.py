"""Warns if ``autogenerate_plugins`` in env.py lists plugins without this one.

Alembic runs no comparator of an unlisted plugin, so the reminder is one of Alembic's own comparators.
"""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import comparators
from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult

from sqla_rls.alembic.autogenerate.compare import COMPARED
from sqla_rls.declare.base import TableDeclarations
from sqla_rls.log import autogenerate_log

log = autogenerate_log(__name__)


@comparators.dispatch_for("autogenerate", qualifier="postgresql", priority=DispatchPriority.LAST)
def remind(autogen_context: Any, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    plugins = autogen_context.opts.get("autogenerate_plugins", ())
    excluded = "~alembic.autogenerate.sqla_rls" in plugins
    if (
        COMPARED not in upgrade_ops.info
        and not excluded
        and any(map(TableDeclarations.of, autogen_context.sorted_tables))
    ):
        log.warning(
            "row security wasn't compared: env.py lists autogenerate_plugins without "
            "'alembic.autogenerate.sqla_rls'. Add it, or add '~alembic.autogenerate.sqla_rls' to exclude it"
        )
    return PriorityDispatchResult.CONTINUE
