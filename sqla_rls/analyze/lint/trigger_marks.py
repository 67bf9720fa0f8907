"""Values that occur nowhere else mark a row, so that a statement can say where its caller reads them."""

# ruff: noqa: S608
# Names come quoted from the catalog; other names and values are quoted by psycopg.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqla_rls.analyze.worlds.objects import Column, Relation
from sqla_rls.analyze.worlds.pools import Pools
from sqla_rls.analyze.worlds.statements import Statement, literal, quoted_list
from sqla_rls.analyze.worlds.values import as_input
from sqla_rls.analyze.worlds.world import Row, Values, World

#: The SQLSTATE with which a statement says where it has found a mark.
SHOWN: Final = "RLS05"
_WORD: Final = "sqla_rls_hidden"
_NUMBER: Final = 918273645
_SMALL_NUMBER: Final = 28173
_UUID: Final = "5a1a0e15-0000-4000-8000-00005a1a0e15"
_DAY: Final = "1907-03-05"
MARKS: Final = f"{_WORD}|{_NUMBER}|{_SMALL_NUMBER}|{_UUID}|{_DAY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A row of a world in which some columns have values that occur nowhere else."""

    row: Row
    columns: tuple[str, ...]
    world: World


@dataclass(frozen=True, slots=True)
class Showing(Statement):
    """A statement whose outcome says where its caller reads a mark afterwards.

    It is the error ``SHOWN`` with the relation and the row.  The marked row itself doesn't count, nor does a
    row that is as before.
    """

    #: The SQL of the relations that the caller reads, by their names; each row is JSON.
    reads: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    #: The SQL with which the caller reads the marked row; None if it has no privilege.
    own: str | None = None

    @property
    def tried(self) -> str:
        seen = f"IF EXISTS ({self.own}) THEN RETURN; END IF;" if self.own is not None else ""
        before = " UNION ALL ".join(self.reads.values())
        looks = "".join(
            f"""
            BEGIN
              FOR sqla_rls_row IN {one} LOOP
                IF sqla_rls_before IS NULL OR NOT sqla_rls_before @> jsonb_build_array(sqla_rls_row) THEN
                  RAISE EXCEPTION USING ERRCODE = '{SHOWN}',
                    MESSAGE = {literal_text(f"reads {name}")} || sqla_rls_row::text;
                END IF;
              END LOOP;
            EXCEPTION WHEN insufficient_privilege THEN NULL;
            END;"""
            for name, one in self.reads.items()
        )
        return f"""nDO $sqla_rls$
          DECLARE
            sqla_rls_role text := pg_catalog.current_setting('role');
            sqla_rls_before jsonb;
            sqla_rls_row jsonb;
          BEGIN
            {seen}
            PERFORM pg_catalog.set_config('role', 'none', true);
            sqla_rls_before := (SELECT pg_catalog.jsonb_agg(t.r) FROM ({before}) AS t (r));
            PERFORM pg_catalog.set_config('role', sqla_rls_role, true);
            BEGIN
              {self.text};
              SET CONSTRAINTS ALL IMMEDIATE;
            EXCEPTION WHEN OTHERS THEN
              IF SQLERRM ~ '{MARKS}' THEN
                RAISE EXCEPTION USING ERRCODE = '{SHOWN}', MESSAGE = 'gets the error ' || SQLERRM;
              END IF;
              RAISE;
            END;
            {seen}
            {looks}
          END $sqla_rls$"""


def literal_text(value: str) -> str:
    """Return *value* as SQL."""
    return "'" + value.replace("'", "''") + "'"


def marked_rows(name: str, columns: Sequence[str], condition: str = "") -> str:
    """Return a source of the rows of relation *name* with a mark; each is a column r of JSON."""
    rows = (
        f"SELECT pg_catalog.to_jsonb(t) AS r FROM (SELECT {quoted_list(columns)} FROM {name}{condition}) AS t"
    )
    return f"({rows}) AS t WHERE t.r::pg_catalog.text ~ '{MARKS}'"


def value_of(marked: Marked, relation: Relation, name: str) -> str:
    return literal(relation.columns[name], marked.row.values[name])


def is_more_than_number(shown: str) -> bool:
    """Return whether *shown* has a mark that no sum can be: a text or a uuid."""
    return _WORD in shown or _UUID in shown


def marks_of(relation: Relation, values: Values, pools: Pools) -> dict[str, Any]:
    """Return the marks that the columns of *values* may have; ``varchar(5)`` has no place for one."""
    marks = {name: mark_of(relation.columns[name]) for name in values}
    return {
        name: mark
        for name, mark in marks.items()
        if mark is not None and pools.accepts(relation.columns[name].type, as_input(mark))
    }


def mark_of(column: Column) -> Any:
    """Return a value of the column's type that occurs nowhere else; None if the type has none."""
    if column.generated is not None or column.kind != "b":
        return None
    if column.base in ("smallint", "int2"):
        return _SMALL_NUMBER
    if column.base in ("json", "jsonb"):
        return f'"{_WORD}"'
    return {"S": _WORD, "N": _NUMBER, "D": f"{_DAY} 12:00"}.get(
        column.category, _UUID if column.base == "uuid" else None
    )
