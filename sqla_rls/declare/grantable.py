"""The privileges that models can declare, and those to which policies don't apply."""

from __future__ import annotations

from collections.abc import Iterable

from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import DefaultPrivilege, Privilege, Role, callers

#: The table privileges to which policies apply.
_TABLE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
GRANTABLE = {
    "TABLES": _TABLE,
    "SEQUENCES": {"USAGE", "SELECT", "UPDATE"},
    "FUNCTIONS": {"EXECUTE"},
    "TYPES": {"USAGE"},
    "SCHEMAS": {"USAGE"},
    "COLUMNS": {"SELECT", "INSERT", "UPDATE"},
}
# Policies don't apply to these privileges.
_BEYOND_ROW_SECURITY = {
    "TABLES": {"TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"},
    "SCHEMAS": {"CREATE"},
    "COLUMNS": {"REFERENCES"},
}


def is_beyond_row_security(one: Privilege | DefaultPrivilege) -> bool:
    """Return whether policies don't apply to the privilege."""
    if isinstance(one, DefaultPrivilege):
        kind = one.object_type
    else:
        kind = "COLUMNS" if one.object_type == "TABLE" and one.column is not None else f"{one.object_type}S"
    return one.privilege in _BEYOND_ROW_SECURITY.get(kind, ())


def refuse_beyond_row_security(
    privileges: Iterable[Privilege | DefaultPrivilege], named: Iterable[Role | str]
) -> None:
    """Check that no caller gets a privilege to which policies don't apply.

    Args:
        privileges: the declared privileges.
        named: the roles that policies name.

    Raises:
        DeclarationError: a role of callers gets such a privilege.
    """
    beyond = [one for one in privileges if is_beyond_row_security(one)]
    refused = callers(named) if beyond else set()
    for one in beyond:
        if one.grantee in refused:
            on = one.name if isinstance(one, Privilege) else one.object_type
            raise DeclarationError(
                f"{one.privilege} on {on} can't be granted to {one.grantee}, a role of callers: policies "
                "don't apply to it, and with a trigger, for example, one caller could read the rows of "
                "others. Grant it to a role that no policy names"
            )


def checked_privileges(privileges: Iterable[str], kind: str, bypasses_row_security: bool) -> list[str]:
    """Return *privileges* in capitals, after a check that they can be declared on *kind* of objects."""
    allowed, beyond = GRANTABLE[kind], _BEYOND_ROW_SECURITY.get(kind, set())
    listed = [privilege.upper() for privilege in privileges]
    if (allowed | (beyond if bypasses_row_security else set())).issuperset(listed):
        return listed
    if beyond.intersection(listed) and (allowed | beyond).issuperset(listed):
        raise DeclarationError(
            f"the privileges can't be declared: policies don't apply to {', '.join(listed)} on {kind}. "
            "Set bypasses_row_security=True if you want this"
        )
    raise DeclarationError(
        f"the privileges can't be declared: policies don't apply to {', '.join(listed)} on "
        f"{kind}, or there is no such privilege. Give some of {', '.join(sorted(allowed))}"
    )
