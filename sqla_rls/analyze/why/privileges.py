"""The privileges that a command needs, and the role lacks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping

from sqla_rls.analyze.why.explanation import Command, Reason
from sqla_rls.analyze.why.target import Target, query


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The columns of its table that a command uses."""

    command: Command
    #: The columns that it writes; empty for all.
    writes: Collection[str] = ()
    #: The columns that its ON CONFLICT DO UPDATE sets.
    updates: Collection[str] = ()
    #: The columns of its conflict target.
    target: Collection[str] = ()
    #: Whether INSERT reads its row back.
    returning: bool = False


def missing_privilege(
    connection: Connection, table: Target, role: str, use: Use
) -> tuple[Reason, str] | None:
    """Return a privilege that *role* lacks for *use* of *table*: the reason, and a sentence."""
    held = connection.execute(query("privileges"), {"oid": table.oid, "role": role}).mappings().one()
    if not held["schema_usage"]:
        grant = f"GRANT USAGE ON SCHEMA {table.schema} TO …"
        return "missing_privilege", f"Role {role!r} may not use schema {table.schema}. Run: {grant}"
    if use.command == "DELETE" and not held["delete"]:
        return _without(role, "DELETE", [], held)
    for privilege, columns, why in _needed(table, use):
        if missing := [name for name in columns if not held["columns"][name][privilege]]:
            return _without(role, privilege, missing, held, why)
    for name, column in table.columns.items():
        sequence = column["sequence"]
        drawn = use.command == "INSERT" and name not in use.writes and sequence is not None
        if drawn and not held["sequences"][sequence]:
            why = f"which the default of column {name!r} needs"
            return "missing_privilege", f"Role {role!r} lacks USAGE on sequence {sequence}, {why}."
    return None


def _needed(table: Target, use: Use) -> Sequence[tuple[str, Collection[str], str]]:
    everything = list(table.columns)
    key = table.key or everything
    written = use.writes or [name for name, column in table.columns.items() if not column["generated"]]
    match use.command:
        case "SELECT":
            return [("SELECT", everything, "")]
        case "DELETE":
            return [("SELECT", key, "")]
        case "UPDATE":
            return [("UPDATE", written, ""), ("SELECT", key, "")]
    return [
        ("INSERT", written, ""),
        ("UPDATE", use.updates, " ON CONFLICT DO UPDATE needs it."),
        ("SELECT", use.target, " The conflict target needs it."),
        ("SELECT", everything if use.returning else (), " INSERT … RETURNING needs it."),
    ]


def _without(
    role: str, privilege: str, columns: Sequence[str], held: RowMapping, why: str = ""
) -> tuple[Reason, str]:
    if columns and any(each[privilege] for each in held["columns"].values()):
        names = ", ".join(repr(name) for name in columns)
        return "column_privilege", f"Role {role!r} lacks {privilege} on columns {names}.{why}"
    return "missing_privilege", f"Role {role!r} lacks {privilege} on the table.{why}"
