"""The ways by which callers run trigger functions; Postgres asks for no EXECUTE when a trigger fires."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import RowMapping

from sqla_rls.analyze.lint.database import Database, listed


def triggers_by_function(database: Database) -> Iterator[tuple[str, list[RowMapping]]]:
    """Yield each SECURITY DEFINER trigger function, with the relations whose commands fire its triggers."""
    found: dict[str, list[RowMapping]] = {}
    for row in database.fetch("definer_triggers"):
        found.setdefault(row["signature"], []).append(row)
    yield from found.items()


def writers(database: Database, relation: str, command: str) -> list[str]:
    """Return the callers' roles that may run *command* on *relation*."""
    if command != "TRUNCATE":
        return database.roles_with_privileges(relation, command)
    return [one.name for one in database.callers if database.holds(one.name, "relation", relation, command)]


def way_in_words(row: RowMapping, command: str, roles: Sequence[str]) -> str:
    """Return how callers of *roles* run the function of *row*, one of ``definer_triggers``."""
    on = {"INSERT": "INSERT into", "DELETE": "DELETE from"}.get(command, command)
    way = f"{listed(roles)} may {on} {row['relation']}"
    if row["relation"] == row["table"]:
        return f"{way}, whose trigger {row['trigger']} calls it"
    return f"{way}, which leads to {row['table']}, whose trigger {row['trigger']} calls it"
