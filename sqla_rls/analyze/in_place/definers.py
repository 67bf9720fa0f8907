"""Functions with the rights of their owners, such as those of memberships(): queries in place of calls.

On rows of no table, a function would read the real ones.  Its query reads those that are made up, all of
them, since row security doesn't hold for the owner.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.in_place.splice import PREFIX
from sqla_rls.analyze.vocabulary.trees import trees
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.objects import Function
from sqla_rls.catalog.query import pinned, trying

_DESCRIBE: Final = text("SELECT * FROM pg_temp.sqla_rls_definers(:signatures, :bodies)").bindparams(
    bindparam("signatures", type_=ARRAY(Text())), bindparam("bodies", type_=ARRAY(Text()))
)
#: The schema and the name of a function.
Name = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definer:
    """A function whose calls its query can replace."""

    signature: str
    owner: str
    #: One SELECT with one column, in which ``$1`` is the first argument.
    query: str
    types: tuple[str, ...]
    defaults: tuple[str | None, ...]
    result: str
    #: The collation of a result of that type.
    collation: str | None
    returns_set: bool

    def called_with(self, arguments: Sequence[str]) -> str | None:
        """Return an expression with the value of a call; None if an argument is missing."""
        given = [*arguments, *self.defaults[len(arguments) :]]
        if len(given) != len(self.types) or any(one is None for one in given):
            return None
        query = self.query
        for start, end, number in reversed(_parameters(query)):
            query = f"{query[:start]}CAST({given[number - 1]} AS {self.types[number - 1]}){query[end:]}"
        # The parts are as Postgres prints them.
        collated = "" if self.collation is None else f" COLLATE {self.collation}"
        value = f"SELECT CAST(q.v AS {self.result}){collated} FROM ({query}) AS q (v)"  # noqa: S608
        # Of the rows, a function without SETOF returns the first.
        return f"pg_catalog.unnest(ARRAY({value}))" if self.returns_set else f"({value} LIMIT 1)"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function in the text of an expression."""

    start: int
    end: int
    name: Name
    #: None if an argument isn't a constant, or if the call isn't of a plain form.
    arguments: tuple[str, ...] | None


def describe_definers(
    connection: Connection, functions: Collection[Function], bodies: Mapping[str, str]
) -> Mapping[Name, Definer]:
    """Return those of *functions* whose calls a query can replace, but not those that share a name.

    Args:
        connection: a connection in a transaction that may write.
        functions: functions of the database.
        bodies: the bodies that functions get, by their signatures.

    Emits:
        A temporary function, and a SELECT that calls it, in a savepoint that is rolled back.
    """
    named: dict[Name, list[Function]] = {}
    for one in functions:
        named.setdefault((one.schema, one.name), []).append(one)
    asked = [ones[0] for ones in named.values() if len(ones) == 1 and ones[0].is_definer]
    found: dict[Name, Definer] = {}
    if not asked:
        return found
    arrays = {
        "signatures": [one.signature for one in asked],
        "bodies": [bodies.get(one.signature) for one in asked],
    }
    with pinned(connection), trying(connection):
        connection.exec_driver_sql(script("describe_definers"), execution_options={"no_parameters": True})
        for row in connection.execute(_DESCRIBE, arrays):
            one, query = asked[row.place - 1], _query(row.spelling)
            if query is not None:
                found[one.schema, one.name] = Definer(
                    signature=one.signature,
                    owner=one.owner,
                    query=query,
                    types=tuple(row.types),
                    defaults=tuple(row.defaults),
                    result=row.result,
                    collation=row.result_collation,
                    returns_set=row.returns_set,
                )
    return found


@cache
def calls(sql: str) -> tuple[Call, ...]:
    """Return the calls of functions outside ``pg_catalog`` in the *sql* of an expression, in their order."""
    from pglast.parser import scan

    text = PREFIX + sql
    tokens = list(scan(text))
    by_start = {token.start: place for place, token in enumerate(tokens)}
    found = []
    for node, is_plain in _function_calls(trees(text), is_plain=True):
        names = [one.sval for one in node.funcname]
        if len(names) < 2 or names[0] == "pg_catalog":
            continue
        opening = by_start[node.location] + 2 * len(names) - 1
        closing, commas = _closing(tokens, opening)
        others = (node.agg_order, node.agg_filter, node.over, node.agg_star, node.agg_distinct)
        is_plain = is_plain and not any(others) and all(map(_is_constant, node.args or ()))
        arguments = None
        if is_plain:
            bounds = [opening, *commas, closing] if node.args else []
            pieces = [
                text[tokens[left].end + 1 : tokens[right].start].strip()
                for left, right in itertools.pairwise(bounds)
            ]
            if node.func_variadic:
                pieces[-1] = pieces[-1][len("VARIADIC") :].strip()
            arguments = tuple(pieces)
        start, end = node.location - len(PREFIX), tokens[closing].end + 1 - len(PREFIX)
        found.append(Call(start, end, (names[-2], names[-1]), arguments))
    return tuple(sorted(found, key=lambda call: call.start))


def _function_calls(node: Any, *, is_plain: bool) -> Iterator[tuple[Any, bool]]:
    """Yield each call, and whether a query can stand in its place."""
    if isinstance(node, tuple | list):
        for each in node:
            yield from _function_calls(each, is_plain=is_plain)
        return
    if not hasattr(node, "__slots__") or isinstance(node, str | int | float):
        return
    kind = type(node).__name__
    if kind == "FuncCall":
        yield node, is_plain
    # In FROM, a function without an alias gives its name to its column.
    inside = is_plain and (kind != "RangeFunction" or node.alias is not None)
    for name in node.__slots__:
        child = getattr(node, name)
        if child is not None:
            yield from _function_calls(child, is_plain=inside)


def _is_constant(node: Any) -> bool:
    kind = type(node).__name__
    if kind == "TypeCast":
        return _is_constant(node.arg)
    if kind == "A_ArrayExpr":
        return all(map(_is_constant, node.elements or ()))
    return kind == "A_Const"


def _closing(tokens: Sequence[Any], opening: int) -> tuple[int, list[int]]:
    """Return the place of the parenthesis that closes the one at *opening*, and of the commas between."""
    depth = 0
    commas: list[int] = []
    for place in range(opening, len(tokens)):
        name = tokens[place].name
        if name in ("ASCII_40", "ASCII_91"):
            depth += 1
        elif name in ("ASCII_41", "ASCII_93"):
            depth -= 1
            if not depth:
                return place, commas
        elif name == "ASCII_44" and depth == 1:
            commas.append(place)
    raise AssertionError("the parser has accepted the parentheses")


@cache
def _parameters(query: str) -> list[tuple[int, int, int]]:
    """Return the start, the end and the number of each parameter of *query*."""
    from pglast.parser import scan

    return [
        (token.start, token.end + 1, int(query[token.start + 1 : token.end + 1]))
        for token in scan(query)
        if token.name == "PARAM"
    ]


def _query(body: str) -> str | None:
    """Return the query in ``BEGIN ATOMIC query; END``; None if the body isn't one SELECT."""
    from pglast.parser import scan

    tokens = list(scan(body))
    ends = [token.start for token in tokens if token.name == "ASCII_59"]
    is_query = [token.name for token in tokens[:3]] == ["BEGIN_P", "ATOMIC", "SELECT"]
    return body[tokens[2].start : ends[0]] if is_query and len(ends) == 1 else None
