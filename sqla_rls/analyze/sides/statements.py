"""The statements of a script, by PostgreSQL's own parser."""

from __future__ import annotations

from typing import Any

from sqla_rls.exc import AnalysisError


def require_parser() -> Any:
    """Return the module pglast.

    Raises:
        AnalysisError: it isn't installed.
    """
    try:
        import pglast
    except ImportError:
        raise AnalysisError(
            "the schema can't be read: the package pglast is missing. Run: pip install 'sqla-rls[analyze]'"
        ) from None
    return pglast


def split(script: str) -> list[str]:
    """Return the statements of *script*, without the comments between them."""
    pglast = require_parser()
    try:
        return [str(one) for one in pglast.parser.split(script)]
    except pglast.parser.ParseError:
        # The script has syntax that is newer than the parser: its scanner finds the semicolons, too.
        found = pglast.parser.split(script, with_parser=False)
        return [_without_comments(str(one)) for one in found]


def _without_comments(statement: str) -> str:
    """Return *statement* without the lines of pg_dump's comment at its top."""
    lines = statement.split("\n")
    while lines and (not lines[0] or lines[0].startswith("--")):
        del lines[0]
    return "\n".join(lines)
