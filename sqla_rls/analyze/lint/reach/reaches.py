"""Answers about the tables of a database: which rows the callers of a role reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.lint.database import TRUST, Database
from sqla_rls.analyze.lint.reach.in_place import InPlace
from sqla_rls.analyze.lint.reach.in_scratch import InScratch
from sqla_rls.analyze.lint.reach.reach import Reach
from sqla_rls.analyze.lint.reach.shape import Shape, Shapes
from sqla_rls.analyze.lint.reach.worlds import Worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError


@dataclass(eq=False)
class Reaches:
    """Answers about tables of a database; each is found once."""

    database: Database
    _known: dict[str, tuple[Reach | str, Shape]] = field(default_factory=dict)
    _found: dict[tuple[str, str], Reach | str] = field(default_factory=dict)
    _of_this_table: dict[tuple[str, str], Reach | str] = field(default_factory=dict)

    @classmethod
    def of(cls, database: Database) -> Reaches:
        """Return the answers about *database*; one object for all rules."""
        return database.cached(cls, lambda: cls(database))

    def of_table(self, name: str, role: str) -> Reach | None:
        """Return the reach of *role* in table *name*; None if it can't be decided, which is noted."""
        if (name, role) not in self._found:
            self._found[name, role] = self._asked(name, role)
        found = self._found[name, role]
        if isinstance(found, str):
            self.database.note_unknown(name, found, role=role)
            return None
        return found

    def of_this_table(self, name: str, role: str) -> Reach | str:
        """Return the reach of *role* on rows of table *name* itself, or why it can't be decided.

        The worlds are the same for each role, so that two roles can be compared.
        """
        if (name, role) not in self._of_this_table:
            self._of_this_table[name, role] = self._evaluated(self.schema.relations[name], role)
        return self._of_this_table[name, role]

    def all(self) -> Iterator[Reach]:
        """Yield the reach of each caller's role in each table whose row security holds for it."""
        for relation in self.database.tables:
            if not relation.row_security or not relation.policies:
                continue
            for role in self.database.roles_with_privileges(relation.name):
                if self.database.is_active(relation.name, role):
                    reach = self.of_table(relation.name, role)
                    if reach is not None:
                        yield reach

    def _asked(self, name: str, role: str) -> Reach | str:
        relation = self.schema.relations[name]
        try:
            shape = self._shapes.of(relation, role)
            if shape.key not in self._known:
                self._known[shape.key] = self._evaluated(shape.relation, role), shape
        except (Undecidable, AnalysisError) as error:
            return str(error)
        found, first = self._known[shape.key]
        if isinstance(found, str):
            return found
        if (found.relation.name, found.role) == (name, role):
            return replace(found, relation=relation)
        names = dict(zip(first.policies, shape.policies, strict=True))
        answers = {
            key if isinstance(key, str) else (names[key[0]], key[1]): one
            for key, one in found.answers.items()
        }
        return replace(found, relation=relation, role=role, first=found, names=names, answers=answers)

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def _evaluated(self, relation: Relation, role: str) -> Reach | str:
        connection = self.database.connection
        read, called = self.schema.reads(relation.name), self.schema.calls(relation.name)
        if (reason := self.database.untrusted.obstacle(read, called)) is not None:
            return f"{reason}. {TRUST}"
        try:
            with undone(connection):
                return self._in_place.reach(relation, role)
        except Undecidable as error:
            obstacle = str(error)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            obstacle = str(error.orig).partition("\n")[0]
        try:
            return self._in_scratch.reach(self.schema.relations[relation.name], role)
        except (Undecidable, AnalysisError) as error:
            return f"{obstacle}, and the scratch database doesn't decide it: {error}"
        except DBAPIError as error:
            return f"{obstacle}, and {str(error.orig).partition(chr(10))[0]}"

    @cached_property
    def worlds(self) -> Worlds:
        """The callers and the worlds of the tables."""
        return Worlds(self.database)

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.database)

    @cached_property
    def _in_place(self) -> InPlace:
        return InPlace(self.worlds)

    @cached_property
    def _in_scratch(self) -> InScratch:
        return InScratch(self.worlds)
