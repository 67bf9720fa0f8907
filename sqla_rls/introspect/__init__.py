"""Declarations of what a database has, for ``sqla-rls import``."""
