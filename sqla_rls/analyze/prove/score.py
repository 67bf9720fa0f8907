"""The mutation score: which weakenings of a database does ``prove`` notice?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sqla_rls.analyze.prove.mutants import Mutant, mutants
from sqla_rls.analyze.prove.proof import Proof, Score
from sqla_rls.analyze.prove.prove import Prover
from sqla_rls.analyze.verdict import Progress
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.schema import read_profiles
from sqla_rls.analyze.worlds.scratch import Outcome, Trial, Tried
from sqla_rls.analyze.worlds.statements import Statements
from sqla_rls.analyze.worlds.universe import Universe

_BATCH = 16
#: Weakenings that matter only to roles which get a privilege or a policy.
_BY_ROLE = ("public", "grant")


def score(
    prover: Prover, proof: Proof, *, schemas: Sequence[str] = (), progress: Progress | None = None
) -> Score:
    """Return which mutants of the scratch database violate an intent.

    Args:
        prover: it has made the proof.
        proof: the proof without a mutant; its violations don't count.
        schemas: the schemas whose tables and views are weakened; without them, all.
        progress: is called with the number of mutants done, their number, and the next mutant.

    Emits:
        The statements of each mutant, and those of ``prove()``.  All is undone.
    """
    known = {violation.key for violation in proof.violations}
    relations = prover.scratch.schema.relations
    with prover.changed(()):
        made = mutants(prover.scratch.connection)
    weakened = [
        one
        for one in made
        if one.object in relations and (not schemas or relations[one.object].schema in schemas)
    ]
    found: list[Mutant] = []
    equivalent: list[Mutant] = []
    survivors: list[Mutant] = []
    for number, mutant in enumerate(weakened):
        if progress is not None:
            progress(number, len(weakened), mutant.name)
        if _is_noticed(prover, mutant, known):
            found.append(mutant)
        elif is_equivalent(prover, mutant):
            equivalent.append(mutant)
        else:
            survivors.append(mutant)
    if progress is not None and weakened:
        progress(len(weakened), len(weakened), "")
    return Score(found=tuple(found), equivalent=tuple(equivalent), survivors=tuple(survivors))


def _affected(prover: Prover, mutant: Mutant) -> list[str]:
    """The tables and views to which access may differ; the weakened one is the first."""
    schema = prover.scratch.schema
    others = [name for name in prover.objects() if mutant.object in schema.reads(name)]
    return sorted(others, key=lambda name: name != mutant.object)


def _is_noticed(prover: Prover, mutant: Mutant, known: set[Any]) -> bool:
    names = _affected(prover, mutant)
    decided = {name: prover.decisions(name) for name in names}
    with prover.changed(mutant.apply) as schema:
        return any(
            prover.attempt(name, decided[name], schema, known=known, first=True).violations.keys() - known
            for name in names
        )


def is_equivalent(prover: Prover, mutant: Mutant) -> bool:
    """Return whether each statement of each caller does the same with the mutant, in all worlds tried."""
    if mutant.object not in prover.scratch.schema.relations or mutant.object in prover.incomplete:
        return False
    return not any(_differs(prover, mutant, name) for name in _affected(prover, mutant))


def _differs(prover: Prover, mutant: Mutant, name: str) -> bool:
    connection = prover.scratch.connection
    relations = prover.scratch.schema.relations
    old = read_profiles(connection, [relations[name]], prover.roles)
    former = read_profiles(connection, [relations[mutant.object]], prover.roles)
    with prover.changed(mutant.apply) as schema:
        joined = prover.scratch.schema.joined(schema)
        relation = joined.relations[name]
        new = read_profiles(connection, [relation], prover.roles)
        joined, shared = prover.oracle.informed(relation, joined, prover.roles, prover.accepts)
        universe = Universe.of(relation, joined, shared, prover.accepts)
        weakened = read_profiles(connection, [joined.relations[mutant.object]], prover.roles)
        groups: dict[str, list[str]] = {}
        for role in prover.roles:
            if not (old[name, role].has_privileges or new[name, role].has_privileges):
                continue
            if mutant.kind in _BY_ROLE and weakened[mutant.object, role] == former[mutant.object, role]:
                continue
            alike = [replace(side[name, role], role="", policies=()) for side in (old, new)]
            groups.setdefault(repr(alike), []).append(role)
        tried = [(roles, (old[name, roles[0]], new[name, roles[0]])) for roles in groups.values()]
        after = list(_outcomes(prover, universe, tried))
    # Only the outcomes of the mutated database are kept: the other side stops at the first difference.
    before = _outcomes(prover, universe, tried)
    return any(_differ(one, other) for one, other in zip(before, after, strict=True))


def _outcomes(
    prover: Prover, universe: Universe, groups: Sequence[tuple[Sequence[str], tuple[Profile, ...]]]
) -> Iterator[Tried]:
    worlds = islice(generate_worlds(universe, prover.budget), prover.budget.worlds)
    while batch := list(islice(worlds, _BATCH)):
        for roles, profiles in groups:
            statements = Statements(universe=universe, profiles=profiles)
            trials = [Trial(world, statements.on(world.row)) for world in batch]
            yield from prover.scratch.run(trials, universe.pools.actors(roles))


def _differ(before: Tried, after: Tried) -> bool:
    if before.rejected or after.rejected:
        return False
    return any(
        old != new
        and (
            Outcome.of(new).permits_more_than(Outcome.of(old))
            or Outcome.of(old).permits_more_than(Outcome.of(new))
        )
        for old, new in zip(before.results, after.results, strict=True)
    )
