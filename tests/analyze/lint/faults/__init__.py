"""Schemas with one fault each, and schemas without any."""

from tests.analyze.lint.faults import (
    admins,
    clean,
    clean_objects,
    conditions,
    dead_ends,
    definers,
    notes,
    numbers,
    openings,
    rights,
    sequences,
    speed,
    ways_around,
)
from tests.analyze.lint.faults.case import Clean, Fault

FAULTS: list[Fault] = [
    *openings.FAULTS,
    *conditions.FAULTS,
    *numbers.FAULTS,
    *admins.FAULTS,
    *definers.FAULTS,
    *sequences.FAULTS,
    *ways_around.FAULTS,
    *rights.FAULTS,
    *dead_ends.FAULTS,
    *speed.FAULTS,
    *notes.FAULTS,
]
CLEAN: list[Clean] = [
    *clean.CLEAN,
    *clean_objects.CLEAN,
    *conditions.CLEAN,
    *numbers.CLEAN,
    *admins.CLEAN,
    *definers.CLEAN,
    *sequences.CLEAN,
]
