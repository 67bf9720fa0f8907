"""What the tests of verdicts of a revision share."""

from __future__ import annotations

from typing import Any, Final

from sqla_rls import Policy, authenticated
from sqla_rls.alembic.autogenerate.verdicts import TO_DECIDE

OWN: Final = "auth.user_id() = user_id"


def read(using: str, *roles: Any, command: str = "SELECT") -> Policy:
    return Policy("p", command, [*(roles or (authenticated,))], using=using)


def verdicts(script: str, direction: str = "upgrade") -> list[str]:
    """Return the comments of a function, each in one line, but not the command that decides the rest."""
    body = script.split(f"def {direction}():")[1].split("\ndef ")[0]
    lines = [line.strip() for line in body.splitlines() if not line.strip().startswith("# ###")]
    return (
        " ".join(line[2:] for line in lines if line.startswith("# "))
        .replace(f" {TO_DECIDE}", "")
        .replace(" Closes:", "\nCloses:")
        .replace(" Same rows", "\nSame rows")
        .replace(" Not decided", "\nNot decided")
        .replace(" Opens:", "\nOpens:")
        .splitlines()
    )
