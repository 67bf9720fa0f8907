"""Schemas with one fault each, and schemas without any."""

from tests.analyze.lint.faults import clean, dead_ends, notes, openings, speed, ways_around
from tests.analyze.lint.faults.case import Clean, Fault

FAULTS: list[Fault] = [*openings.FAULTS, *ways_around.FAULTS, *dead_ends.FAULTS, *speed.FAULTS, *notes.FAULTS]
CLEAN: list[Clean] = [*clean.CLEAN]
