"""Which role can do what with which object, and the ways around the policies."""

from sqla_rls.analyze.matrix.entry import Entry, Matrix, WayAround
from sqla_rls.analyze.matrix.read import matrix_of, read_matrix

__all__ = ["Entry", "Matrix", "WayAround", "matrix_of", "read_matrix"]
