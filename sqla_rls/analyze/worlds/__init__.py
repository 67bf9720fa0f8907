"""Small worlds: a few rows and callers, the statements that are tried in them, and what differs."""
