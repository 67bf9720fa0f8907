"""Verdicts about changes of access, beside pgrls: ``python -m benchmarks.analyze``.

Each case of tests/analyze/cases is a change; its verdicts were found by real commands on real rows.  All
contenders see the same two databases in one run.  They are asked: does the change permit something that was
denied before?  Ours answers by ``compare_databases()``.  ``pgrls diff`` answers by its classification:
DANGEROUS is yes, REQUIRES_REVIEW is unknown, SAFE and BREAKING are no.  ``pgrls verify --against`` answers
another question, whether callers can newly read or write rows of other tenants, in all of its modes.

pgrls takes part where it is installed: ``uv run --with pgrls python -m benchmarks.analyze``, or
``--pgrls COMMAND``.  Its configuration names the anonymous role and the columns of tenants.

Then one policy changes in a schema of many tables, and lint and the matrix look at such schemas (see
benchmarks/many.py; ``--many`` is that part alone).  At the end, ``sqla-rls lint``, pgrls, and splinter with
``--splinter FILE`` look for faults of schemas (see benchmarks/faults.py); ``--faults`` is that part alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import URL

from benchmarks.faults import compare_faults
from benchmarks.many import compare_many_shapes
from sqla_rls.analyze.lint.others import pgrls_command
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.analyze.worlds.schema import Schema
from tests.analyze.cases import CASES
from tests.analyze.cases.case import Case, Key, opens
from tests.analyze.cases.scratch import Servers
from tests.analyze.lint.faults import CLEAN, FAULTS

Answer: TypeAlias = Literal["yes", "no", "unknown"]

_CONFIGURATION: Final = """
[database]
schemas = [{schemas}]
[lint.rules.SEC004]
anon_roles = ["anonymous"]
[lint.rules.SEC042]
anon_roles = ["anonymous"]
[lint.rules.SEC021]
identity_columns = ["owner", "user_id", "author", "org_id", "org", "tenant"]
"""
_MODES: Final = ("anon", "cross-tenant", "write", "escalation", "reachability")
_AUTH_FUNCTIONS: Final = ("auth.user_id", "auth.uid", "auth.jwt", "auth.session")
_SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^auth$'"


@dataclass(frozen=True, slots=True)
class Found:
    answer: Answer
    seconds: float
    #: Of ours: how many verdicts are right, wrong and unknown.
    verdicts: Counter[str] = field(default_factory=Counter)


class Sides(NamedTuple):
    servers: Servers
    case: Case
    names: tuple[str, str]

    @property
    def urls(self) -> list[URL]:
        return [server.url(name) for server, name in zip(self.servers.both, self.names, strict=True)]


def many_tables(number: int) -> Case:
    """A schema of *number* tables with four policies each, of which one policy changes."""
    script = """
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
    for place in range(number):
        name = f"table_{place}"
        script += f"""
CREATE TABLE {name} (id bigint PRIMARY KEY, org_id int NOT NULL, owner text, body text);
ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO authenticated;
CREATE POLICY read ON {name} FOR SELECT TO authenticated
  USING (org_id IN (SELECT m.org_id FROM members AS m));
CREATE POLICY add ON {name} FOR INSERT TO authenticated WITH CHECK (owner = (SELECT auth.user_id()));
CREATE POLICY edit ON {name} FOR UPDATE TO authenticated USING (owner = (SELECT auth.user_id()));
CREATE POLICY away ON {name} FOR DELETE TO authenticated USING (owner = (SELECT auth.user_id()));
"""
    return Case(
        name=f"{number} tables",
        before=script,
        after="ALTER POLICY away ON table_0 USING (owner = (SELECT auth.user_id()) OR body IS NULL);",
        rows={},
        expected=opens("table_0", "DELETE"),
    )


def ours(sides: Sides) -> Found:
    with sides.servers.connected(sides.names) as (before, after):
        begin = time.perf_counter()
        found = compare_databases(before, after)
        seconds = time.perf_counter() - begin
    verdicts: dict[Key, str] = {(one.object, one.role, one.command): one.verdict for one in found.changes}
    verdicts |= {(one.object, one.role, one.command): "unknown" for one in found.unknown}
    tally: Counter[str] = Counter()
    compared: set[Key] = {(one.object, one.role, one.command) for one in found.same} | {
        *verdicts,
        *sides.case.expected,
    }
    for key in compared:
        verdict, expected = verdicts.get(key, "same"), sides.case.expected.get(key, "same")
        tally["unknown" if verdict == "unknown" else "right" if verdict == expected else "wrong"] += 1
    answer: Answer = "yes" if found.opens else "unknown" if found.unknown else "no"
    return Found(answer, seconds, tally)


class Pgrls:
    """The command, as its documentation has it."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command, self.configuration = command, folder / "pgrls.toml"

    def diff(self, sides: Sides) -> Found:
        before, after = map(_shown, sides.urls)
        found, seconds = self._run(sides, "diff", before, after)
        classes = {change["classification"] for change in found["violations"]} if found else {"error"}
        if "dangerous" in classes:
            return Found("yes", seconds)
        return Found("unknown" if classes & {"requires_review", "error"} else "no", seconds)

    def verify(self, sides: Sides) -> Found:
        before, after = map(_shown, sides.urls)
        functions = [part for name in _AUTH_FUNCTIONS for part in ("--auth-function", name)]
        seconds, answers = 0.0, set[Answer]()
        for mode in _MODES:
            options = ("--database-url", after, "--against", before, "--mode", mode, *functions)
            found, took = self._run(sides, "verify", *options)
            seconds += took
            unsure = found is None or found["summary"]["new_unverified"]
            answers.add("unknown" if unsure else "no")
            if found is not None and found["summary"]["new_leaks"]:
                answers.add("yes")
        # The comparison doesn't list tables that were undecided before, too.
        alone, took = self._run(
            sides, "verify", "--database-url", after, "--mode", "cross-tenant", *functions
        )
        seconds += took
        if alone is None or '"unverified"' in json.dumps(alone.get("tables", [])):
            answers.add("unknown")
        return Found("yes" if "yes" in answers else "unknown" if "unknown" in answers else "no", seconds)

    def _run(self, sides: Sides, *arguments: str) -> tuple[dict[str, Any] | None, float]:
        with sides.servers.connected(sides.names) as (before, _):
            schemas = ", ".join(f'"{name}"' for name in before.exec_driver_sql(_SCHEMAS).scalars())
        self.configuration.write_text(_CONFIGURATION.format(schemas=schemas))
        begin = time.perf_counter()
        done = subprocess.run(
            [*self.command, *arguments, "--format", "json", "--config", str(self.configuration)],
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - begin
        try:
            return json.loads(done.stdout), seconds
        except ValueError:
            print(f"  {sides.case.name}: pgrls {arguments[0]}: {done.stderr.strip()[:200]}", file=sys.stderr)
            return None, seconds


def _shown(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _truth(case: Case) -> bool:
    return any(verdict in ("opens", "both") for verdict in case.expected.values())


def _pgrls(command: str | None) -> list[str] | None:
    return [command] if command else pgrls_command()


def _contenders(pgrls: Pgrls | None, with_verify: bool) -> Iterator[tuple[str, Callable[[Sides], Found]]]:
    yield "sqla-rls", ours
    if pgrls is not None:
        yield "pgrls diff", pgrls.diff
        if with_verify:
            yield "pgrls verify", pgrls.verify


def compare(servers: Servers, cases: Sequence[Case], pgrls: Pgrls | None, *, verify_every: int) -> None:
    """Print the answers of each contender to all *cases*."""
    found: dict[str, dict[str, Found]] = {}
    for number, case in enumerate(cases):
        with servers.databases(case) as names:
            with_verify = verify_every > 0 and number % verify_every == 0
            for name, contender in _contenders(pgrls, with_verify):
                found.setdefault(name, {})[case.name] = contender(Sides(servers, case, names))
    truth = {case.name: _truth(case) for case in cases}
    opening = sum(truth.values())
    print(f"{len(cases)} changes, {opening} of which open something\n")
    print(
        f"{'':14}{'changes':>9}{'right':>7}{'wrong':>7}{'unknown':>9}{'missed':>8}{'false alarms':>14}"
        f"{'s, median':>11}{'all':>8}"
    )
    for name, answers in found.items():
        tally = Counter(
            "unknown"
            if one.answer == "unknown"
            else "right"
            if (one.answer == "yes") == truth[case]
            else "wrong"
            for case, one in answers.items()
        )
        missed = sum(truth[case] and one.answer == "no" for case, one in answers.items())
        alarms = sum(not truth[case] and one.answer == "yes" for case, one in answers.items())
        seconds = [one.seconds for one in answers.values()]
        print(
            f"{name:14}{len(answers):9}{tally['right']:7}{tally['wrong']:7}{tally['unknown']:9}{missed:8}{alarms:14}"
            f"{statistics.median(seconds):11.2f}{sum(seconds):8.0f}",
            flush=True,
        )
    verdicts: Counter[str] = sum((one.verdicts for one in found["sqla-rls"].values()), Counter())
    print(f"\nsqla-rls, each object, role and command: {dict(verdicts)}")
    for name, answers in found.items():
        for changed, one in answers.items():
            is_wrong = one.answer != "unknown" and (one.answer == "yes") != truth[changed]
            if is_wrong or one.verdicts["wrong"]:
                print(f"  {name}: {changed}: {one.answer}")


def compare_many(servers: Servers, number: int, pgrls: Pgrls | None, rounds: int) -> None:
    """Print the seconds for one changed policy among *number* tables."""
    case = many_tables(number)
    print(f"\none of {4 * number} policies changed")
    with servers.databases(case) as names:
        sides = Sides(servers, case, names)
        for _ in range(rounds):
            with servers.connected(names) as connections:
                begin = time.perf_counter()
                for connection in connections:
                    Schema.read(connection)
                reading = time.perf_counter() - begin
            one = ours(sides)
            print(
                f"sqla-rls      {one.answer}: {one.seconds:.2f} s; "
                f"reading both catalogs one after the other takes {reading:.2f} s",
                flush=True,
            )
            if pgrls is not None:
                other = pgrls.diff(sides)
                print(f"pgrls diff    {other.answer}: {other.seconds:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pgrls", help="the command, if it isn't installed in this environment")
    parser.add_argument(
        "--verify-every", type=int, default=4, metavar="N", help="pgrls verify sees each Nth case; 0 is none"
    )
    parser.add_argument("--cases", default="", help="only the cases whose name has this word")
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of the schema with many tables")
    parser.add_argument("--faults", action="store_true", help="only the faults of schemas")
    parser.add_argument("--many", action="store_true", help="only lint and the matrix on many tables")
    parser.add_argument("--matrix-tables", type=int, default=200, metavar="N")
    parser.add_argument("--fault", default="", help="only the faults whose name has this word")
    parser.add_argument("--splinter", type=Path, metavar="FILE", help="splinter.sql of supabase/splinter")
    arguments = parser.parse_args()
    if not arguments.faults and not arguments.many:
        _changes(arguments)
    if not arguments.faults and not arguments.cases:
        compare_many_shapes(arguments.tables, arguments.matrix_tables)
    if not arguments.cases and not arguments.many:
        if arguments.pgrls:
            folder = str(Path(arguments.pgrls).resolve().parent)
            os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")
        compare_faults(
            [fault for fault in FAULTS if arguments.fault in fault.name],
            CLEAN,
            with_pgrls=_pgrls(arguments.pgrls) is not None,
            splinter_sql=arguments.splinter,
        )


def _changes(arguments: argparse.Namespace) -> None:
    command = _pgrls(arguments.pgrls)
    with Servers.start() as servers, tempfile.TemporaryDirectory() as folder:
        pgrls = Pgrls(command, Path(folder)) if command else None
        if pgrls is None:
            print("pgrls isn't installed: it doesn't take part")
        cases = [case for case in CASES if arguments.cases in case.name]
        compare(servers, cases, pgrls, verify_every=arguments.verify_every)
        if arguments.tables:
            compare_many(servers, arguments.tables, pgrls, arguments.rounds)


if __name__ == "__main__":
    main()
