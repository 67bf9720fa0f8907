"""All rules, found by the files of rules/."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from sqla_rls.analyze.lint import rules as room
from sqla_rls.analyze.lint.rule import GROUPS, Rule


@cache
def rules() -> Mapping[str, Rule]:
    """Return all rules by their names, those of a group together."""
    found = [
        one
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
        for one in vars(import_module(module.name)).values()
        if isinstance(one, Rule)
    ]
    return {one.name: one for one in sorted(found, key=lambda one: (GROUPS.index(one.group), one.name))}
