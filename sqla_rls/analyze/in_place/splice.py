"""Puts other relations in the place of the tables that an expression reads; the rest of its text stays.

PostgreSQL's own parser finds the places, and its scanner the ends of the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqla_rls.analyze.in_place.asking import asks_for_role
from sqla_rls.analyze.vocabulary import Vocabulary, read_expression
from sqla_rls.analyze.vocabulary.trees import trees

#: The parser reads an expression as the column of a query.
PREFIX: Final = "SELECT "
#: A table of no world: its reader can't be evaluated.
SYSTEM_COLUMNS: Final = frozenset({"tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"})


@dataclass(frozen=True, slots=True)
class _Place:
    """A name of a relation in the text."""

    start: int
    end: int
    schema: str | None
    name: str
    has_alias: bool
    is_only: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Expression:
    """A predicate as Postgres prints it with every name qualified, and the relations that it reads."""

    sql: str
    vocabulary: Vocabulary
    places: tuple[_Place, ...]
    #: Why the expression can't be evaluated on rows of no table, after "the policy"; None if it can.
    obstacle: str | None
    #: Whether its own words ask for the role that evaluates it; its functions may, too.
    depends_on_role: bool
    words: frozenset[str]
    #: The schemas of functions, types and operators that the text names.
    schemas: frozenset[str]
    #: The operators outside ``pg_catalog``, with their schemas.
    operators: frozenset[tuple[str, str]]

    @property
    def has_subquery(self) -> bool:
        return bool(self.words & {"select", "values"})

    @property
    def relations(self) -> tuple[tuple[str, str], ...]:
        """The schema and name of each relation that it reads."""
        return tuple(dict.fromkeys((place.schema or "", place.name) for place in self.places))

    def with_relations(
        self, named: Callable[[str, str], str], others: Iterable[tuple[int, int, str]] = ()
    ) -> str:
        """Return the text with ``named(schema, name)`` for each relation, under the alias that it has.

        Args:
            named: the relations.
            others: the start and the end of other parts of the text, and what replaces them.
        """
        replaced = list(others)
        for place in self.places:
            assert place.schema is not None
            alias = "" if place.has_alias else f" AS {quoted(place.name)}"
            replaced.append((place.start, place.end, named(place.schema, place.name) + alias))
        parts, position = [], 0
        for start, end, text in sorted(replaced):
            parts += [self.sql[position:start], text]
            position = end
        return "".join([*parts, self.sql[position:]])


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@cache
def parsed(sql: str) -> Expression:
    """Return the *sql* of a predicate with the places of its relations.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    vocabulary = read_expression(sql)
    places: tuple[_Place, ...] = ()
    words: frozenset[str] = frozenset()
    obstacle = None
    if not vocabulary.is_complete:
        obstacle = "has a part that can't be read without running it"
    else:
        places = tuple(_places(sql))
        words = frozenset(_words(sql))
        obstacle = _obstacle(vocabulary, places)
    schemas, operators = _named(sql) if vocabulary.is_complete else (set[str](), set[tuple[str, str]]())
    return Expression(
        sql=sql,
        vocabulary=vocabulary,
        places=places,
        obstacle=obstacle,
        depends_on_role=asks_for_role(sql),
        words=words,
        schemas=frozenset(schemas),
        operators=frozenset(operators),
    )


def _obstacle(vocabulary: Vocabulary, places: tuple[_Place, ...]) -> str | None:
    if named := sorted(vocabulary.names & SYSTEM_COLUMNS):
        return f"reads the system column {named[0]}"
    for place in places:
        if place.schema is None:
            return f"reads pg_catalog.{place.name}"
        if place.is_only:
            return f"reads {place.schema}.{place.name} without its partitions and children"
    return None


def _places(sql: str) -> Iterator[_Place]:
    from pglast.parser import scan

    text = PREFIX + sql
    tokens = list(scan(text))
    by_start = {token.start: number for number, token in enumerate(tokens)}
    found = []
    for node, in_scope in _range_vars(text):
        if node.schemaname is None and node.relname in in_scope:
            continue
        first = by_start[node.location]
        parts = sum(part is not None for part in (node.catalogname, node.schemaname, node.relname))
        last = tokens[first + 2 * (parts - 1)]
        found.append(
            _Place(
                start=node.location - len(PREFIX),
                end=last.end + 1 - len(PREFIX),
                schema=node.schemaname,
                name=node.relname,
                has_alias=node.alias is not None,
                is_only=not node.inh,
            )
        )
    yield from sorted(found, key=lambda place: place.start)


def _range_vars(text: str) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield each RangeVar with the names of the CTEs around it."""
    for statement in trees(text):
        yield from _inside(statement, frozenset())


def _inside(node: Any, scope: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    if isinstance(node, tuple | list):
        for each in node:
            yield from _inside(each, scope)
        return
    kind = type(node).__name__
    if kind == "RangeVar":
        yield node, scope
        return
    if not hasattr(node, "__slots__") or isinstance(node, str | int | float):
        return
    clause = getattr(node, "withClause", None)
    if clause is not None:
        scope |= {cte.ctename for cte in clause.ctes}
    for name in node.__slots__:
        child = getattr(node, name)
        if child is not None:
            yield from _inside(child, scope)


def _words(sql: str) -> Iterator[str]:
    """Yield the keywords of *sql*: they name roles without being columns or functions."""
    from pglast.parser import scan

    for token in scan(sql):
        if token.kind != "NO_KEYWORD":
            yield token.name.lower()


def _named(sql: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the schemas of functions, types and operators, and the operators outside ``pg_catalog``."""
    from pglast.visitors import Visitor

    schemas: set[str] = set()
    operators: set[tuple[str, str]] = set()

    class Names(Visitor):
        def visit_FuncCall(self, _: Any, node: Any) -> None:
            self.note(node.funcname)

        def visit_TypeName(self, _: Any, node: Any) -> None:
            self.note(node.names)

        def visit_A_Expr(self, _: Any, node: Any) -> None:
            self.note(node.name)
            if node.name and len(node.name) > 1 and node.name[0].sval != "pg_catalog":
                operators.add((node.name[0].sval, node.name[-1].sval))

        def note(self, names: Any) -> None:
            if names and len(names) > 1:
                schemas.add(names[0].sval)

    Names()(trees(PREFIX + sql))
    return schemas - {"pg_catalog"}, operators
