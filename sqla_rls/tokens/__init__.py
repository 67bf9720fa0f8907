"""Tokens, the keys that verify them, and the callers that they prove."""
