"""The changes that a person has reviewed, in a file beside the code."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from sqla_rls.analyze.verdict import Change, Comparison, Counterexample
from sqla_rls.exc import AnalysisError

#: The version of the format of baseline files.
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One reviewed change."""

    object: str
    role: str
    command: str
    verdict: str
    #: The digest of the counterexamples: a change with another one isn't reviewed.
    counterexample: str
    #: The counterexample in words, for the reader of the file.
    text: str

    @classmethod
    def of(cls, change: Change) -> Entry:
        """Return the entry of *change*."""
        return cls(
            object=change.object,
            role=change.role,
            command=change.command,
            verdict=change.verdict,
            counterexample=digest(change),
            text=change.counterexample.text,
        )

    @property
    def key(self) -> tuple[str, ...]:
        """The parts that must be equal."""
        return self.object, self.role, self.command, self.verdict, self.counterexample


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The reviewed changes of a file."""

    entries: Collection[Entry] = ()

    @classmethod
    def of(cls, comparison: Comparison) -> Baseline:
        """Return a baseline in which all changes of *comparison* are reviewed."""
        return cls(entries=[Entry.of(change) for change in comparison.changes])

    @classmethod
    def from_json(cls, content: str, name: str) -> Baseline:
        """Read the text of the baseline file *name*.

        Raises:
            AnalysisError: the text isn't one of ``to_json()``.
        """
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                raise ValueError
            return cls(entries=[Entry(**one) for one in found["reviewed"]])
        except (KeyError, TypeError, ValueError):
            raise AnalysisError(
                f"the baseline {name} can't be read: it isn't one of sqla-rls diff. Write it with "
                "--write-baseline"
            ) from None

    def to_json(self) -> str:
        """Return the text of a baseline file."""
        reviewed = [asdict(entry) for entry in sorted(self.entries, key=lambda entry: entry.key)]
        return json.dumps({"format": FORMAT, "reviewed": reviewed}, indent=2, ensure_ascii=False) + "\n"

    def has(self, change: Change) -> bool:
        """Return whether *change* is reviewed, with the same counterexample."""
        return Entry.of(change).key in {entry.key for entry in self.entries}

    def stale(self, comparison: Comparison) -> list[Entry]:
        """Return the entries of changes that *comparison* doesn't have."""
        found = {Entry.of(change).key for change in comparison.changes}
        return [entry for entry in self.entries if entry.key not in found]


def digest(change: Change) -> str:
    """Return a digest of the counterexamples of *change*, without their words."""
    found = [_facts(one) for one in (change.counterexample, change.closing) if one is not None]
    canonical = json.dumps(found, sort_keys=True, default=str)
    return f"sha256:{sha256(canonical.encode()).hexdigest()}"


def _facts(example: Counterexample) -> dict[str, Any]:
    facts = asdict(example)
    del facts["text"]
    return facts
