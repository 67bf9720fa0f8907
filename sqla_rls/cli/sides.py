"""Shared by the commands that take a side: the options of sides, and errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from sqla_rls.cli.base import Unanswered
from sqla_rls.exc import RowSecurityError

log = logging.getLogger(__name__)

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--models", multiple=True, metavar="PACKAGE.MODULE:BASE", help="The models of the side `models`."
    ),
    click.option(
        "--alembic-config",
        multiple=True,
        metavar="FILE",
        help="The alembic.ini, or pyproject.toml, of the side `rev:`.",
    ),
    click.option(
        "--owner",
        help="The role that owns the objects of `models` and `rev:`. Without it, the owner of most tables on "
        "the other side.",
    ),
)


def side_options(command: _Command) -> _Command:
    """Add the options of sides to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn each error of the block into one line and the exit code 2."""
    try:
        yield
    except click.ClickException:
        raise
    except (RowSecurityError, OSError) as error:
        raise Unanswered(" ".join(str(error).split())) from error
    except Exception as error:
        log.debug("sqla-rls has no answer", exc_info=True)
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise Unanswered(f"sqla-rls has no answer: {type(error).__name__}: {reason}") from error
