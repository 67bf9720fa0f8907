"""The constraints that a row must satisfy to be in a world: of no table, no row would be refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from sqla_rls.analyze.in_place.conditions import row_of
from sqla_rls.analyze.in_place.evaluate import Evaluator, Question, Unit
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.objects import ForeignKey, Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.world import Row, Values, World

#: Actions of foreign keys by which the rows that refer to a row go or change with it.
_FOLLOWS = "cnd"


@dataclass(slots=True)
class Constraints:
    """The constraints of the relations of *schema*, for rows of *relation*."""

    schema: Schema
    relation: Relation
    evaluator: Evaluator
    actions: Mapping[tuple[str, str, str], tuple[str, str]]
    #: Whether a row can be in its table, and whether it can be a new one.
    _valid: dict[str, tuple[bool, bool]] = field(default_factory=dict)

    def learn(self, rows: Iterable[Row]) -> None:
        """Ask Postgres which of *rows* satisfy the constraints of their own tables."""
        by_relation: dict[str, dict[str, Row]] = {}
        for row in rows:
            if not self._has_conditions(row.relation):
                continue
            key = _key(row.relation, row.values)
            if key not in self._valid:
                by_relation.setdefault(row.relation, {})[key] = row
        for name, unknown in by_relation.items():
            relation = self.schema.relations[name]
            checks = [f"({check}) IS NOT FALSE" for check in relation.checks]
            checks += [f"({relation.partition_check})"] if relation.partition_check else []
            new_checks = [f"({check}) IS NOT FALSE" for check in relation.new_checks]
            units = [Unit(row.values, {}) for row in unknown.values()]
            conditions = tuple(" AND ".join(each) or "true" for each in (checks, new_checks))
            with self.evaluator.units(units):
                answers = self.evaluator.answers(Question(conditions, {}, row_of(relation)), len(units))
            for key, (held, held_by_new) in zip(unknown, answers, strict=True):
                self._valid[key] = held is True, held is held_by_new is True

    def _has_conditions(self, name: str) -> bool:
        relation = self.schema.relations[name]
        return bool(relation.checks or relation.new_checks or relation.partition_check)

    def _is_valid(self, row: Row, *, is_new: bool = False) -> bool:
        return not self._has_conditions(row.relation) or self._valid[_key(row.relation, row.values)][is_new]

    def allow(self, world: World) -> bool:
        """Return whether the rows of *world* can be in their tables together."""
        if any(_lacks_value(self.schema.relations[row.relation], row.values) for row in world.all_rows):
            return False
        self.learn(world.all_rows)
        if not all(map(self._is_valid, world.all_rows)):
            return False
        seen: set[str] = set()
        for row in world.all_rows:
            for key in self._keys(self.schema.relations[row.relation], row.values):
                if key in seen:
                    return False
                seen.add(key)
        return True

    def allow_new(self, world: World, values: Values) -> bool:
        """Return whether a row with *values* can be inserted in *world*."""
        keys = (*self.relation.foreign_keys, *self.relation.new_foreign_keys)
        return (
            self.allow_proposed(values)
            and self._has_parents(world, keys, values)
            and not (
                set(self._keys(self.relation, values))
                & {
                    key
                    for one in world.all_rows
                    if one.relation == self.relation.name
                    for key in self._keys(self.relation, one.values)
                }
            )
        )

    def allow_change(self, world: World, old: Values, new: Values) -> bool:
        """Return whether the row in question can be changed from *old* to *new*."""
        others = [row for row in world.rows if row.relation == self.relation.name]
        taken = {key for row in others for key in self._keys(self.relation, row.values)}
        if taken & set(self._keys(self.relation, new)):
            return False
        # Postgres looks for the parent of a changed key only.
        keys = [
            key
            for key in (*self.relation.foreign_keys, *self.relation.new_foreign_keys)
            if any(old.get(name) != new.get(name) for name in key.columns)
        ]
        if not (self.allow_proposed(new) and self._has_parents(world, keys, new)):
            return False
        return not any(
            old.get(name) != new.get(name)
            for key in self._referring(world, old, 1)
            for name in key.target_columns
        )

    def allow_end(self, world: World, values: Values) -> bool:
        """Return whether the row in question can be deleted."""
        return not self._referring(world, values, 0)

    def allow_proposed(self, values: Values) -> bool:
        """Return whether a new row with *values* satisfies the constraints that ask for no other row.

        INSERT … ON CONFLICT asks for these also if another row is in the way.
        """
        row = Row(self.relation.name, values)
        if _lacks_value(self.relation, values, is_new=True):
            return False
        self.learn([row])
        return self._is_valid(row, is_new=True)

    def _has_parents(self, world: World, keys: Iterable[ForeignKey], values: Values) -> bool:
        return all(self._has_parent(world, key, values) for key in keys)

    def _has_parent(self, world: World, key: ForeignKey, values: Values) -> bool:
        wanted = [values.get(name) for name in key.columns]
        if any(value is None for value in wanted):
            return not key.is_full or all(value is None for value in wanted)
        parents = [one.values for one in world.all_rows if one.relation == key.target]
        parents += [values] if key.target == self.relation.name else []
        return any([parent.get(name) for name in key.target_columns] == wanted for parent in parents)

    def _referring(self, world: World, values: Values, action: int) -> list[ForeignKey]:
        """Return the keys of other rows that refer to the row, and don't follow it."""
        found = []
        for row in world.rows:
            relation = self.schema.relations[row.relation]
            for key in (*relation.foreign_keys, *relation.new_foreign_keys):
                if key.target != self.relation.name:
                    continue
                refers = [row.values.get(name) for name in key.columns]
                actions = self.actions.get((relation.schema, relation.relname, key.name), ("a", "a"))
                if actions[action] not in _FOLLOWS and refers == [values.get(n) for n in key.target_columns]:
                    found.append(key)
        return found

    def _keys(self, relation: Relation, values: Values) -> Iterable[str]:
        for key in relation.keys:
            found = [values.get(name) for name in key]
            if all(value is not None for value in found):
                yield repr((relation.name, key, found))


def read_actions(connection: Connection) -> Mapping[tuple[str, str, str], tuple[str, str]]:
    """Return what becomes of the rows that refer to a deleted, or to a changed row, by their foreign key."""
    return {
        (row["schema"], row["name"], row["key"]): (row["on_delete"], row["on_update"])
        for row in connection.execute(query("referential_actions")).mappings()
    }


def _lacks_value(relation: Relation, values: Values, *, is_new: bool = False) -> bool:
    """Return whether a column that is NOT NULL is NULL in *values*."""
    return any(
        (column.needs_value if is_new else column.not_null)
        and column.generated is None
        and values[name] is None
        for name, column in relation.columns.items()
        if name in values
    )


def _key(relation: str, values: Values) -> str:
    return repr((relation, values))
