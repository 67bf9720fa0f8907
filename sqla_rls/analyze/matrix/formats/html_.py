"""A matrix as one self-contained page: no network, and no script but its own.

Each name, expression and word is escaped.  A Content-Security-Policy permits the page's own style and script
by their hashes, so that a name can't bring another one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Final

from sqla_rls.analyze.matrix.difference import EntryChange, MatrixDiff, WayChange
from sqla_rls.analyze.matrix.entry import Entry, Matrix, WayAround
from sqla_rls.analyze.matrix.formats.told import counted, examples, told, told_way
from sqla_rls.analyze.report.report import facts, plain
from sqla_rls.analyze.why.explanation import COMMANDS

_VERDICTS: Final = {
    "": "all",
    "some": "any but never",
    "always": "always",
    "condition": "a condition",
    "never": "never",
    "unknown": "unknown",
}
_CHANGES: Final = {
    "": "all rows",
    "any": "changed rows",
    "opens": "opens",
    "closes": "closes",
    "both": "opens and closes",
    "rewritten": "rewritten",
    "unknown": "unknown",
}
_LABELS: Final = {
    "opens": "opens",
    "closes": "closes",
    "both": "opens and closes",
    "rewritten": "rewritten",
    "unknown": "changed",
}
#: The order of verdicts when a column is sorted.
_ORDER: Final = ("always", "condition", "unknown", "never")


def html_(found: Matrix | MatrixDiff) -> str:
    """Return *found* as a page."""
    diff = found if isinstance(found, MatrixDiff) else None
    matrix = found.after if isinstance(found, MatrixDiff) else found
    style, script = _file("page.css"), _file("page.js")
    if diff is None:
        heading = f"Access in <span>{_name(matrix.name)}</span>"
        title = f"Access in {matrix.name}"
    else:
        heading = f"Access: {_name(diff.before.name)} → {_name(diff.after.name)}"
        title = f"Access: {diff.before.name} → {diff.after.name}"
    left_out = diff.left_out if diff is not None else matrix.left_out
    return Template(_file("page.html")).substitute(
        title=escape(plain(title)),
        heading=heading,
        summary=escape(_summary(matrix, diff)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        filters="\n".join(_filters(matrix, diff)),
        legend=_legend(diff),
        entries=_entries(matrix, diff),
        ways=_ways(matrix, diff),
        left_out=_left_out(left_out),
    )


@cache
def _file(name: str) -> str:
    return (resources.files("sqla_rls.analyze.matrix") / "page" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _name(words: str) -> str:
    return f'<span class="name">{escape(plain(words))}</span>'


def _summary(matrix: Matrix, diff: MatrixDiff | None) -> str:
    parts = [counted(len(matrix.objects), "object"), counted(len(matrix.roles), "role")]
    if diff is not None:
        parts.append(counted(len(diff.entries) + len(diff.ways), "change"))
    return ", ".join(parts)


def _filters(matrix: Matrix, diff: MatrixDiff | None) -> Iterator[str]:
    ways = [change.way for change in diff.ways] if diff is not None else list(matrix.ways)
    roles = dict.fromkeys([*matrix.roles, *(way.role for way in ways)])
    kinds = sorted({entry.kind for entry in matrix.entries} | {way.kind for way in ways})
    yield _select("role", "Role", {"": "all", **{role: plain(role) for role in roles}})
    yield _select("kind", "Kind", {"": "all", **{kind: kind for kind in kinds}})
    yield _select("command", "Command", {"": "all", **{one: one for one in COMMANDS}})
    yield _select("verdict", "Verdict", _VERDICTS)
    if diff is not None:
        yield _select("change", "Change", _CHANGES)


def _select(name: str, label: str, options: dict[str, str]) -> str:
    inner = "".join(
        f'<option value="{escape(value)}">{escape(shown)}</option>' for value, shown in options.items()
    )
    return (
        f'<div class="field"><label for="by-{name}">{label}</label>'
        f'<select id="by-{name}" name="{name}">{inner}</select></div>'
    )


def _legend(diff: MatrixDiff | None) -> str:
    items = [
        ("never", "never", "no row"),
        ("always", "always", "every row"),
        ("condition", "own rows", "a condition; open it to see the SQL"),
    ]
    if diff is not None:
        items += [("opens", "opens", "callers can do more"), ("closes", "closes", "callers can do less")]
    inner = "".join(f'<li><b class="{kind}">{word}</b> {meaning}</li>' for kind, word, meaning in items)
    return f'<ul class="legend">{inner}</ul>'


def _table(id_: str, label: str, head: Sequence[str], rows: Iterable[str]) -> str:
    # The roles remain where a narrow screen shows the rows as blocks.
    cells = "".join(f'<th scope="col" role="columnheader">{one}</th>' for one in head)
    return (
        f'<table id="{id_}" role="table" aria-label="{label}">'
        f'<thead role="rowgroup"><tr role="row">{cells}</tr></thead>'
        f'<tbody role="rowgroup">\n{chr(10).join(rows)}\n</tbody></table>'
    )


def _entries(matrix: Matrix, diff: MatrixDiff | None) -> str:
    keys = {(entry.object, entry.role): entry.kind for entry in matrix.entries}
    if diff is not None:
        keys.update(
            ((one.entry.object, one.entry.role), one.entry.kind)
            for one in diff.entries
            if (one.entry.object, one.entry.role) not in keys
        )
    rows = [_row(matrix, diff, name, role, kind) for (name, role), kind in sorted(keys.items())]
    if not rows:
        return "<p>No role has access that policies could limit.</p>"
    return _table("entries", "Access", ("Object", "Role", *COMMANDS), rows)


def _row(matrix: Matrix, diff: MatrixDiff | None, name: str, role: str, kind: str) -> str:
    cells = []
    for command in COMMANDS:
        entry = matrix.by_key.get((name, role, command))
        change = None if diff is None else diff.by_key.get((name, role, command))
        cells.append(_cell(command, entry, change))
    return (
        f'<tr role="row" data-role="{escape(role)}" data-kind="{escape(kind)}">'
        f'<th scope="row" role="rowheader"><span class="name">{escape(plain(name))}</span> '
        f'<span class="kind">{escape(kind)}</span></th>'
        f'<td role="cell" data-label="Role">{_name(role)}</td>{"".join(cells)}</tr>'
    )


def _cell(command: str, entry: Entry | None, change: EntryChange | None) -> str:
    verdict = "never" if entry is None else entry.verdict
    direction = "" if change is None else change.direction
    style = direction if direction in ("opens", "closes", "both") else verdict
    words = "never" if entry is None else entry.words
    badge = f'<span class="badge">{_LABELS[direction]}</span>' if direction else ""
    shown = f"{badge}{escape(plain(words))}"
    if entry is not None and entry.columns and verdict != "never":
        shown += f' <span class="reason">(columns {escape(plain(", ".join(entry.columns)))})</span>'
    if change is not None and told(change.before) != told(entry):
        shown += f' <span class="was">before: {escape(told(change.before))}</span>'
    inner = "".join([*_example(change), *_reason(entry), *_sql(entry), *_sql_before(entry, change)])
    content = f"<details><summary>{shown}</summary>{inner}</details>" if inner else f"<span>{shown}</span>"
    order = f"{_ORDER.index(verdict)} {words}"
    return (
        f'<td role="cell" class="{style}" data-label="{command}" data-command="{command}" '
        f'data-verdict="{verdict}" data-change="{direction}" data-sort="{escape(plain(order))}">'
        f"{content}</td>"
    )


def _reason(entry: Entry | None) -> Iterator[str]:
    # "no privilege" in most cells of a large matrix would hide the others.
    if entry is not None and entry.reason and (entry.sql or entry.reason != "no privilege"):
        yield f'<p class="reason">{escape(plain(entry.reason))}</p>'


def _sql(entry: Entry | None) -> Iterator[str]:
    if entry is not None and entry.sql:
        yield f"<pre><code>{_lines(entry.sql)}</code></pre>"


def _sql_before(entry: Entry | None, change: EntryChange | None) -> Iterator[str]:
    before = None if change is None else change.before
    if before is not None and before.sql and before.sql != (entry.sql if entry is not None else ""):
        yield f'<p class="example">Before:</p><pre><code>{_lines(before.sql)}</code></pre>'


def _example(change: EntryChange | None) -> Iterator[str]:
    if change is None:
        return
    for sentence in examples(change):
        yield f'<p class="example">{escape(sentence)}</p>'
    for example in change.counterexamples:
        yield f"<pre><code>{_lines(chr(10).join(facts(example)))}</code></pre>"


def _ways(matrix: Matrix, diff: MatrixDiff | None) -> str:
    rows: list[str] = []
    changes = {} if diff is None else diff.ways_by_key
    ways = {way.key: way for way in matrix.ways}
    ways.update({key: change.way for key, change in changes.items() if key not in ways})
    rows = [_way(ways[key], changes.get(key)) for key in sorted(ways)]
    if not rows:
        return "<p>None was found.</p>"
    return _table(
        "ways-around", "Ways around the policies", ("Way", "Role", "Commands", "Reaches", "How"), rows
    )


def _way(way: WayAround, change: WayChange | None) -> str:
    direction = "" if change is None else change.direction
    badge = f'<span class="badge {direction}">{_LABELS[direction]}</span>' if direction else ""
    reached = ", ".join(way.reaches) or "any table"
    how = escape(plain(way.text))
    if change is not None and change.before is not None and change.after is not None:
        how += f' <span class="was">before: {escape(told_way(change.before))}</span>'
    if way.sql:
        how = f"<details><summary>{how}</summary><pre><code>{_lines(way.sql)}</code></pre></details>"
    return (
        f'<tr role="row" data-role="{escape(way.role)}" data-kind="{escape(way.kind)}" '
        f'data-commands="{escape(" ".join(way.commands))}" data-change="{direction}">'
        f'<th scope="row" role="rowheader">{badge}{_name(way.object)} '
        f'<span class="kind">{escape(way.kind)}</span></th>'
        f'<td role="cell" data-label="Role">{_name(way.role)}</td>'
        f'<td role="cell" data-label="Commands">{escape(", ".join(way.commands)) or "all"}</td>'
        f'<td role="cell" data-label="Reaches">{_name(reached)}</td>'
        f'<td role="cell" data-label="How">{how}</td></tr>'
    )


def _left_out(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    inner = "".join(f"<li>{escape(plain(one))}</li>" for one in sentences)
    return f'<section aria-labelledby="left-out"><h2 id="left-out">Left out</h2><ul>{inner}</ul></section>'


def _lines(sql: str) -> str:
    """Return *sql* escaped, without characters that change the order of others."""
    return escape("".join(one if one.isprintable() or one == "\n" else " " for one in sql))
