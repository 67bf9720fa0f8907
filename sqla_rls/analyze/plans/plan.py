"""A plan of Postgres as values: what is evaluated once, what for each row, and which indexes are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

_INDEX_CONDITIONS: Final = ("Index Cond", "Recheck Cond", "TID Cond")
_FILTERS: Final = ("Filter", "Join Filter", "One-Time Filter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The part of a plan that reads one table.

    Attributes:
        schema: the schema of the table.
        table: the table.
        node: the node type of Postgres, such as "Seq Scan".
        index: the index that it uses.
        index_condition: the condition that the index decides.
        filter: the condition that is evaluated for each row.
        rows: the rows that it returns in all; without ANALYZE, an estimate.
        removed: the rows in all that the filter removes; None without ANALYZE.
    """

    schema: str
    table: str
    node: str
    index: str | None = None
    index_condition: str | None = None
    filter: str | None = None
    rows: float = 0
    removed: float | None = None

    @property
    def relation(self) -> str:
        """The table with its schema, without quotes."""
        return f"{self.schema}.{self.table}".lstrip(".")

    @property
    def line(self) -> str:
        """The scan in one line."""
        words = f"{self.node} on {self.relation}"
        words += f" using {self.index}" if self.index else ""
        words += f", index condition {self.index_condition}" if self.index_condition else ""
        words += f", filter {self.filter}" if self.filter else ""
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan, with the figures of EXPLAIN.

    Attributes:
        milliseconds: the time of execution; None without ANALYZE.  With ``timed_out``, the statement took
            longer than that.
        cost: the total cost that Postgres estimates.
        rows: the rows of the result; without ANALYZE, an estimate.
        scans: the tables that the plan reads.
        once: the names of the InitPlans: subqueries that are evaluated once.
        per_row: the names of the SubPlans: subqueries that are evaluated for each row, with the number of
            their evaluations, which is None without ANALYZE.
        calls: the functions outside pg_catalog that filters call for each row.
        source: the JSON of Postgres.
    """

    milliseconds: float | None
    timed_out: bool = False
    cost: float
    rows: float
    scans: tuple[Scan, ...]
    once: tuple[str, ...]
    per_row: Mapping[str, float | None]
    calls: tuple[str, ...]
    source: Mapping[str, Any]

    @property
    def rows_read(self) -> float:
        """The rows that its scans return, and those that their filters remove."""
        return sum(scan.rows + (scan.removed or 0) for scan in self.scans)

    @classmethod
    def of(
        cls,
        source: Mapping[str, Any],
        *,
        is_own: Callable[[str], bool] = lambda name: "." in name,
        timed_out_after: float | None = None,
    ) -> Plan:
        """Read the object that ``EXPLAIN (FORMAT JSON)`` returns in a list.

        Args:
            source: the object.
            is_own: whether the function of a name, as the plan prints it, is outside pg_catalog.
            timed_out_after: the milliseconds after which the statement was cancelled.
        """
        root = source["Plan"]
        nodes = list(_nodes(root))
        filters = [str(node[name]) for node in nodes for name in _FILTERS if name in node]
        # A hashed SubPlan runs once, and so does the result of a CTE.
        hashed = {name for one in filters for name in _hashed(one)}
        plans = [node for node in nodes if node.get("Parent Relationship") in ("InitPlan", "SubPlan")]
        initial = [
            node
            for node in plans
            if node["Parent Relationship"] == "InitPlan" or node.get("Subplan Name") in hashed
        ]
        repeated = [node for node in plans if node not in initial]
        called = [name for one in (*filters, *_outputs(repeated)) for name in functions_in(one)]
        return cls(
            milliseconds=source.get("Execution Time", timed_out_after),
            timed_out=timed_out_after is not None,
            cost=root["Total Cost"],
            rows=root.get("Actual Rows", root["Plan Rows"]) * root.get("Actual Loops", 1),
            scans=tuple(_scan(node) for node in nodes if "Relation Name" in node),
            once=tuple(str(node.get("Subplan Name", "")) for node in initial),
            per_row={str(node.get("Subplan Name", "")): node.get("Actual Loops") for node in repeated},
            calls=tuple(dict.fromkeys(filter(is_own, called))),
            source=source,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "milliseconds": self.milliseconds,
            "timed_out": self.timed_out,
            "cost": self.cost,
            "rows": self.rows,
            "scans": [{name: getattr(one, name) for name in _SCAN} for one in self.scans],
            "once": list(self.once),
            "per_row": dict(self.per_row),
            "calls_per_row": list(self.calls),
            "plan": self.source["Plan"],
        }


_SCAN: Final = ("relation", "node", "index", "index_condition", "filter", "rows", "removed")


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _own_nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the node and those below it, without subqueries."""
    yield node
    for child in node.get("Plans", ()):
        if child.get("Parent Relationship") not in ("InitPlan", "SubPlan"):
            yield from _own_nodes(child)


def _outputs(plans: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the expressions of subqueries without a table."""
    for plan in plans:
        if plan["Node Type"] == "Result":
            yield from map(str, plan.get("Output", ()))


def _scan(node: Mapping[str, Any]) -> Scan:
    indexes = [one for one in _own_nodes(node) if "Index Name" in one]
    loops = node.get("Actual Loops", 1)
    removed = node.get("Rows Removed by Filter")
    condition = next(
        (str(one[name]) for one in (*indexes, node) for name in _INDEX_CONDITIONS if name in one), None
    )
    return Scan(
        schema=node.get("Schema", ""),
        table=node["Relation Name"],
        node=node["Node Type"],
        index=", ".join(str(one["Index Name"]) for one in indexes) or None,
        index_condition=condition,
        filter=node.get("Filter"),
        rows=node.get("Actual Rows", node["Plan Rows"]) * loops,
        removed=None if removed is None else removed * loops,
    )


def functions_in(expression: str) -> list[str]:
    """Return the functions that an expression of a plan calls, as it names them.

    A plan prints more than SQL, so that only the scanner of Postgres can read it.
    """
    tokens = _tokens(expression)
    found = []
    for place, (kind, _text) in enumerate(tokens):
        if kind != "ASCII_40" or place == 0 or not _is_name(tokens[place - 1][0]):
            continue
        name = tokens[place - 1][1]
        if place >= 3 and tokens[place - 2][0] == "ASCII_46" and _is_name(tokens[place - 3][0]):
            name = f"{tokens[place - 3][1]}.{name}"
        found.append(name)
    return found


def _is_name(kind: str) -> bool:
    # Words that aren't reserved may be names of functions; their tokens have names in capitals, as IDENT has.
    return kind.isupper() and not kind.startswith(("ASCII_", "SCONST", "ICONST", "FCONST"))


def _hashed(expression: str) -> Iterator[str]:
    """Yield the names of the SubPlans that are hashed: ``hashed SubPlan 1``."""
    words = [text for _, text in _tokens(expression)]
    for place, word in enumerate(words[:-2]):
        if word == "hashed":
            yield f"{words[place + 1]} {words[place + 2]}"


def _tokens(expression: str) -> list[tuple[str, str]]:
    with suppress(ImportError):
        from pglast.parser import ParseError, scan

        with suppress(ParseError):
            return [(token.name, expression[token.start : token.end + 1]) for token in scan(expression)]
    return []
