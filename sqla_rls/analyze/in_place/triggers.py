"""The commands that triggers may change or refuse: without rows, no trigger is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.objects import Relation

#: The bits of CreateTrigStmt.events, of pg_trigger.h.
_EVENTS: Final[Mapping[Command, int]] = {"INSERT": 1 << 2, "DELETE": 1 << 3, "UPDATE": 1 << 4}


def commands_of_triggers(relation: Relation) -> frozenset[Command]:
    """Return the commands on *relation* that have a trigger; all, if one can't be read."""
    import pglast

    found: set[Command] = set()
    for trigger in relation.triggers:
        # The text of pg_get_triggerdef(), and the letter of pg_trigger.tgenabled.
        definition, _, enabled = trigger.rpartition(" ")
        if enabled == "D":
            continue
        try:
            statement: Any = pglast.parse_sql(definition)[0].stmt
        except pglast.parser.ParseError:
            return frozenset(_EVENTS)
        found |= {command for command, bit in _EVENTS.items() if statement.events & bit}
    return frozenset(found)
