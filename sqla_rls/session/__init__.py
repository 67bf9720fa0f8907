"""Binds callers to transactions: sessions, their options, and the connections that they share."""
