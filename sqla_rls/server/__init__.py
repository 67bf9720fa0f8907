"""Postgres servers that this program starts."""
