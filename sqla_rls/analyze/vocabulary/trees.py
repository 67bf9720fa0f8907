"""The trees of PostgreSQL's parser: the readers of one expression share its tree."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

#: A tree takes a hundred kilobytes.
_MOST: Final = 64


@lru_cache(_MOST)
def trees(sql: str) -> tuple[Any, ...]:
    """Return the statements of *sql*, as pglast has them.  They are shared: don't change them.

    Raises:
        ImportError: pglast isn't installed.
        pglast.parser.ParseError: the parser doesn't know the syntax.
    """
    import pglast

    return tuple(raw.stmt for raw in pglast.parse_sql(sql))


def nodes(node: Any) -> Iterator[Any]:
    """Yield *node* and all nodes inside it."""
    from pglast.ast import Node

    if isinstance(node, tuple | list):
        for part in node:
            yield from nodes(part)
    elif isinstance(node, Node):
        yield node
        for name in node:
            yield from nodes(getattr(node, name))


def spelled(node: Any) -> str:
    """Return *node* as SQL."""
    from pglast.stream import RawStream

    text: str = RawStream()(node)
    return text
