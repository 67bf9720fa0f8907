"""Todos that only their owner sees: the example of the README, end to end."""
