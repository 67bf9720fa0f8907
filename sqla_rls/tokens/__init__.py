"""Who is calling: tokens, the keys that verify them, and the callers that they prove."""
