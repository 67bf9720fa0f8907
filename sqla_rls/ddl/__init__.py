"""The SQL text of each statement."""
