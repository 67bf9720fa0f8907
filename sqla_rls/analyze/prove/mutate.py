"""Weakens a test database in one place at a time, and lets the user's own tests judge."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from sqla_rls.analyze.prove.mutants import Mutant, access_state, mutants, run
from sqla_rls.analyze.prove.proof import Score
from sqla_rls.exc import AnalysisError


def mutate(
    engine: Engine,
    command: Sequence[str],
    *,
    schemas: Sequence[str] = (),
    limit: int | None = None,
    said: Callable[[str], None] = lambda sentence: None,
) -> Score:
    """Run *command* once for each mutant of the database; it must fail.

    Args:
        engine: connects as a superuser or as the owner of all tables.
        command: the program and its arguments.
        schemas: the schemas that are weakened; without them, all.
        limit: the most mutants, spread over all tables.
        said: takes a sentence about the progress.

    Raises:
        AnalysisError: the command fails without a mutant, it can't run, it removes the mutant, or the
            database can't be restored.

    Emits:
        The statements of each mutant, committed, and those that undo it.
    """
    with engine.connect() as connection:
        before = access_state(connection)
        made = [
            mutant
            for mutant in mutants(connection)
            if not schemas or any(_is_in(mutant.object, schema) for schema in schemas)
        ]
    if not made:
        raise AnalysisError(
            "the tests can't be judged: the database has no policies to weaken. Migrate it first"
        )
    chosen = _spread(made, limit)
    said(f"{len(chosen)} of {len(made)} mutants. The tests run once without a mutant.")
    start = time.monotonic()
    if (status := _run(command)) != 0:
        raise AnalysisError(
            f"the tests can't judge: they fail without a mutant, with exit code {status}. Mend them first"
        )
    _require(engine, before, "the tests changed the policies, flags or privileges of the database")
    said(f"They passed in {time.monotonic() - start:.1f} seconds.")
    found: list[Mutant] = []
    survivors: list[Mutant] = []
    for number, mutant in enumerate(chosen, 1):
        with _applied(engine, mutant, before):
            failed = _run(command) != 0
            _require_in_place(engine, mutant, before)
        (found if failed else survivors).append(mutant)
        said(f"{number} of {len(chosen)}: {'found' if failed else 'SURVIVES'}: {mutant.text}")
    return Score(found=tuple(found), equivalent=(), survivors=tuple(survivors))


@contextmanager
def _applied(engine: Engine, mutant: Mutant, before: Mapping[str, str]) -> Iterator[None]:
    """Apply *mutant*; undo it also after Ctrl-C, and make sure that the database is as *before*."""
    try:
        with engine.begin() as connection:
            run(connection, mutant.apply)
        yield
    finally:
        with _uninterrupted():
            _undo(engine, mutant, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C in the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _undo(engine: Engine, mutant: Mutant, before: Mapping[str, str]) -> None:
    with engine.connect() as connection:
        state = access_state(connection, mutant.object)
        if state.get(mutant.object) != before[mutant.object]:
            try:
                run(connection, mutant.undo)
                connection.commit()
            except Exception as error:
                raise AnalysisError(f"{_unrestored(mutant)} {error}") from error
    with engine.connect() as connection:
        if access_state(connection, mutant.object).get(mutant.object) != before[mutant.object]:
            raise AnalysisError(_unrestored(mutant))


def _unrestored(mutant: Mutant) -> str:
    return (
        f"{mutant.object} isn't as before: {mutant.text} Run by hand: {'; '.join(mutant.undo)}; "
        "or migrate the test database again."
    )


def _require_in_place(engine: Engine, mutant: Mutant, before: Mapping[str, str]) -> None:
    with engine.connect() as connection:
        now = access_state(connection, mutant.object).get(mutant.object)
    if now is None or now == before[mutant.object]:
        raise AnalysisError(
            f"the tests can't judge: after their run, {mutant.object} had lost the mutant, so they create "
            "their tables again. Let them use the database at URL as it is, for example by an environment "
            "variable that turns the creation off"
        )


def _require(engine: Engine, before: Mapping[str, str], problem: str) -> None:
    with engine.connect() as connection:
        if access_state(connection) != before:
            raise AnalysisError(
                f"the tests can't judge: {problem}. Let them use the database at URL as it is"
            )


def _run(command: Sequence[str]) -> int:
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise AnalysisError(
            f"the tests can't run: {Path(command[0]).name}: {error.strerror}. Give a program after --"
        ) from error
    return done.returncode


def _is_in(name: str, schema: str) -> bool:
    return name.startswith((f"{schema}.", f'"{schema}".'))


def _spread(made: Sequence[Mutant], limit: int | None) -> list[Mutant]:
    """Return at most *limit* mutants: of each table the first, then the second, and so on."""
    if limit is None or len(made) <= limit:
        return list(made)
    by_object: dict[str, list[Mutant]] = {}
    for mutant in made:
        by_object.setdefault(mutant.object, []).append(mutant)
    chosen: set[str] = set()
    for place in range(max(map(len, by_object.values()))):
        for found in by_object.values():
            if place < len(found) and len(chosen) < limit:
                chosen.add(found[place].name)
    return [mutant for mutant in made if mutant.name in chosen]
