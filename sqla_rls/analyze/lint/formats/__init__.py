"""The formats of the findings."""

from collections.abc import Callable, Mapping
from typing import Final

from sqla_rls.analyze.lint.formats.github import github
from sqla_rls.analyze.lint.formats.json_ import json_
from sqla_rls.analyze.lint.formats.junit import junit
from sqla_rls.analyze.lint.formats.sarif import sarif
from sqla_rls.analyze.lint.formats.text import text
from sqla_rls.analyze.lint.run import Report

#: The functions that write a report, by the names of their formats.
FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "text": text,
    "json": json_,
    "sarif": sarif,
    "github": github,
    "junit": junit,
}
