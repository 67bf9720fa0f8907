"""Reads a database, and returns its objects as values."""
