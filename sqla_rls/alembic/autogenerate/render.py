"""An operation of autogenerate, and its text in the migration: a call with literals only."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Self

# Not from alembic.autogenerate, which may still be loading.
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations

from sqla_rls.alembic.operations.registered import require_ours
from sqla_rls.snapshot import TableKey

_LINE_LENGTH = 100


class Call(MigrateOperation):
    """``op.function(*args, **kwargs)`` and the call that undoes it.

    An *implicit* call isn't written, for example since DROP TABLE has its effect.  Its reverse is written,
    unless that is implicit, too.  A *remark* is a comment above the call.

    Raises:
        MigrationError: another package has registered an operation with that name.
    """

    undo: Call
    remark: str | None = None

    def __init__(self, function: str, *args: Any, implicit: bool = False, **kwargs: Any) -> None:
        require_ours(function)
        self.function, self.args, self.implicit = function, args, implicit
        self.kwargs = {name: value for name, value in kwargs.items() if value is not None}

    def undone_by(self, undo: Call) -> Call:
        self.undo, undo.undo = undo, self
        return self

    def reverse(self) -> Call:
        return self.undo

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return _Diff((self.function, *self.args, self.kwargs), "\n".join(_lines(self, "op.")))

    @property
    def ops(self) -> list[MigrateOperation]:
        """Empty for an implicit call, which ``alembic check`` then doesn't list; others have no ``ops``."""
        if not self.implicit:
            raise AttributeError("ops")
        return []


class _Diff(tuple[Any, ...]):
    """The output of ``alembic check``: the lines that the migration would have."""

    def __new__(cls, values: tuple[Any, ...], text: str) -> Self:
        found = super().__new__(cls, values)
        found.text = text
        return found

    text: str

    def __repr__(self) -> str:
        return f"\n{self.text}"


def confirmed(table: TableKey, exposure: str) -> Call:
    """Return the call that stops the migration until somebody confirms an exposure; a downgrade has none."""
    call, undo = (
        Call(
            "confirm_exposure", table.name, exposure, implicit=implicit, confirmed=False, schema=table.schema
        )
        for implicit in (False, True)
    )
    return call.undone_by(undo)


class Notes(MigrateOperation):
    """Comments at the begin of the upgrade, or of the downgrade."""

    ops: tuple[MigrateOperation, ...] = ()

    def __init__(self, *lines: str, downgrade: Sequence[str] = ()) -> None:
        self.lines, self.of_downgrade = lines, tuple(downgrade)

    def reverse(self) -> Notes:
        return Notes(*self.of_downgrade)


class Remarks(MigrateOperation):
    """Warnings, as comments above the other operations."""

    #: Empty, so that ``alembic check`` lists no warning.
    ops: tuple[MigrateOperation, ...] = ()

    def __init__(self, *warnings: str) -> None:
        self.warnings = warnings

    def reverse(self) -> Remarks:
        return Remarks()


@Operations.implementation_for(Notes)
@Operations.implementation_for(Remarks)
def _say_nothing(operations: Operations, remarks: Notes | Remarks) -> None:
    """Do nothing: comments have no effect in a migration that isn't written to a file."""


@renderers.dispatch_for(Remarks)
def _render_remarks(autogen_context: Any, remarks: Remarks) -> list[str]:
    return [line for warning in remarks.warnings for line in _comment(f"WARNING: {warning}")]


@renderers.dispatch_for(Notes)
def _render_notes(autogen_context: Any, notes: Notes) -> list[str]:
    return [line for note in notes.lines for line in _comment(note)]


def _comment(text: str) -> list[str]:
    # A line break in a name would end the comment.  Others reorder what a reviewer sees.
    plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return [f"# {line}" for line in wrap(plain, _LINE_LENGTH, break_long_words=False, break_on_hyphens=False)]


@Operations.implementation_for(Call)
def _invoke(operations: Operations, call: Call) -> None:
    if not call.implicit:
        getattr(operations, call.function)(*call.args, **call.kwargs)


@renderers.dispatch_for(Call)
def _render(autogen_context: Any, call: Call) -> list[str]:
    if call.implicit:
        return []
    return _lines(call, autogen_context.opts["alembic_module_prefix"] or "")


def _lines(call: Call, prefix: str) -> list[str]:
    function = f"{prefix}{call.function}"
    arguments = [_literal(value) for value in call.args]
    keywords = [f"{name}={_literal(value)}" for name, value in call.kwargs.items()]
    line = f"{function}({', '.join(arguments + keywords)})"
    remark = _comment(call.remark or "")
    if "\n" not in line and len(line) <= _LINE_LENGTH:
        return [*remark, line]
    lines = [", ".join(arguments), *keywords] if arguments else keywords
    return [*remark, f"{function}(", *(f"    {line}" for one in lines for line in f"{one},".split("\n")), ")"]


def _literal(value: Any) -> str:
    if not isinstance(value, str) or "\n" not in value:
        return repr(value)
    lines = "\n".join(f"    {line!r}" for line in value.splitlines(keepends=True))
    return f"(\n{lines}\n)"
