"""Autogenerate: compare, warn, and render the operations."""
