"""Declarations of the objects of a database, for ``sqla-rls import``."""
