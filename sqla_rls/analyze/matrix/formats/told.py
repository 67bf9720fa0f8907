"""Shared by the formats: entries and ways in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqla_rls.analyze.matrix.difference import EntryChange, WayChange
from sqla_rls.analyze.matrix.entry import Entry, WayAround
from sqla_rls.analyze.report.report import plain


def told(entry: Entry | None) -> str:
    """Return the verdict with its columns and its reason, in one line."""
    if entry is None:
        return "never (there is no such object or role)"
    columns = f", columns {', '.join(entry.columns)}" if entry.columns and entry.verdict != "never" else ""
    reason = f" ({entry.reason})" if entry.reason else ""
    return plain(f"{entry.words}{columns}{reason}")


def grouped(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """Yield the commands that have the same words, with these."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(told(entry), []).append(entry.command)
    for words, commands in groups.items():
        yield ", ".join(commands), words


def has_privilege(entry: Entry) -> bool:
    """Return whether the role may try the command at all."""
    return entry.verdict != "never" or entry.basis != "privilege"


def told_way(way: WayAround) -> str:
    """Return a way in one line, without its kind and role."""
    commands = f"{', '.join(way.commands)}: " if way.commands else ""
    reached = ", ".join(way.reaches) or "any table"
    return plain(f"{commands}{way.text}. Reaches {reached}")


def examples(change: EntryChange) -> Iterator[str]:
    """Yield the counterexamples in words, and the reason of an unknown direction."""
    for example in change.counterexamples:
        yield plain(f"{example.text} ({example.before} before, {example.after} after)")
    if change.reason:
        yield plain(change.reason)


def told_way_change(change: WayChange) -> str:
    """Return the way, and what it was before if both sides have it."""
    if change.before is not None and change.after is not None:
        return f"{told_way(change.after)}. Before: {told_way(change.before)}"
    return told_way(change.way)


def counted(number: int, noun: str) -> str:
    """Return *number* with its noun."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
