"""A matrix, or the difference of two, as text: one file for each format."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from sqla_rls.analyze.matrix.difference import MatrixDiff
from sqla_rls.analyze.matrix.entry import Matrix
from sqla_rls.analyze.matrix.formats.csv_ import csv_
from sqla_rls.analyze.matrix.formats.html_ import html_
from sqla_rls.analyze.matrix.formats.json_ import json_
from sqla_rls.analyze.matrix.formats.listing import listing
from sqla_rls.analyze.matrix.formats.markdown import markdown
from sqla_rls.analyze.matrix.formats.text import text

Found: TypeAlias = "Matrix | MatrixDiff"

FORMATS: Final[Mapping[str, Callable[[Found], str]]] = {
    "text": text,
    "json": json_,
    "csv": csv_,
    "markdown": markdown,
}

__all__ = ["FORMATS", "html_", "listing"]
