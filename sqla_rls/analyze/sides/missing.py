"""The objects that a scratch database lacks, since neither models nor revisions create them."""

from __future__ import annotations

from typing import Final

from sqla_rls.exc import UnknownRole

#: A table, a schema, a function, or a role or type doesn't exist.
_MISSING: Final = ("42P01", "3F000", "42883", "42704")


def of_another_program(error: BaseException) -> str:
    """Return a sentence about *error* if an object is missing that another program may own; "" otherwise."""
    if not isinstance(error, UnknownRole) and getattr(error, "sqlstate", None) not in _MISSING:
        return ""
    return (
        ". A scratch database has no objects of other programs, such as Supabase. If this is one, compare "
        "files of sqla-rls snapshot: one of the database before the upgrade, and one of a copy after it"
    )
