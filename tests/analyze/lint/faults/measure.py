"""The findings of the rules on a fault, before and after it is mended, and on a clean schema."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from sqlalchemy import Connection

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.run import lint
from sqla_rls.catalog.query import undone
from tests.analyze.lint.faults.case import Clean, Fault
from tests.analyze.lint.faults.observe import mend, prepare


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings with the fault, and without."""

    faulty: list[Finding]
    mended: list[Finding]

    def gone(self) -> list[Finding]:
        """Return the findings that go with the fault."""
        left = {(one.key, one.level) for one in self.mended}
        return [one for one in self.faulty if (one.key, one.level) not in left]

    def found(self, fault: Fault) -> bool:
        """Return whether a rule that *fault* names finds one of its objects, until it is mended."""
        return any(one.rule == fault.rule and names(one.object, fault) for one in self.gone())


def names(object_: str, fault: Fault) -> bool:
    """Return whether *object_* is one of the objects of *fault*; its database has any name."""
    return object_ in fault.objects or "DATABASE" in fault.objects


def look(connection: Connection, *, select: Sequence[str] = (), speed: bool = False) -> list[Finding]:
    """Return the findings, in the transaction of a superuser."""
    report = lint(
        database_of(connection),
        target="faults",
        select=select,
        speed=speed,
    )
    return list(report.findings)


def database_of(connection: Connection) -> Database:
    """Return the database of a superuser's connection, which is its own scratch database."""
    return Database(
        connection=connection,
        open_scratch=lambda: nullcontext(connection),
        is_scratch=True,
        anonymous_roles=("anonymous", "anon"),
    )


def findings_of(connection: Connection, fault: Fault) -> Findings:
    """Make the schema of *fault*, look, mend it, look again, and undo all."""
    with undone(connection):
        driver = connection.connection.driver_connection
        assert driver is not None
        prepare(driver, fault)
        # Speed needs many rows; each group is looked at by itself.
        rules = ["speed"] if fault.group == "speed" else []
        faulty = look(connection, select=rules)
        mend(driver, fault)
        return Findings(faulty, look(connection, select=rules))


def findings_above_info(connection: Connection, schema: Clean) -> list[Finding]:
    """Make the schema, look, and undo it; return the findings above info."""
    with undone(connection):
        driver = connection.connection.driver_connection
        assert driver is not None
        prepare(driver, schema)
        return [one for one in look(connection, speed=True) if one.level != "info"]
