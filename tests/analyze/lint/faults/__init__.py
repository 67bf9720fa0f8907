"""Schemas with one fault each, and schemas without any."""

from tests.analyze.lint.faults import clean, dead_ends, notes, openings, speed
from tests.analyze.lint.faults.case import Clean, Fault

FAULTS: list[Fault] = [*openings.FAULTS, *dead_ends.FAULTS, *speed.FAULTS, *notes.FAULTS]
CLEAN: list[Clean] = [*clean.CLEAN]
