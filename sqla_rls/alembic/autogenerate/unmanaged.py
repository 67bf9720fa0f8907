"""Warns of unmanaged views and functions that callers may use."""

from __future__ import annotations

from collections.abc import Iterable

from sqla_rls.catalog.granted import GrantedObject
from sqla_rls.log import autogenerate_log

log = autogenerate_log(__name__)


def say_what_is_unmanaged(unmanaged: Iterable[GrantedObject]) -> None:
    names: dict[str, list[str]] = {}
    for kind, key in unmanaged:
        names.setdefault(kind, []).append(".".join(filter(None, key)))
    for kind, listed in names.items():
        log.warning(
            "autogenerate doesn't manage %ss that callers may use: the models don't declare %s. Declare "
            "them, drop them by hand, or name them in ignore(%ss=…)",
            kind,
            ", ".join(listed),
            kind,
        )
