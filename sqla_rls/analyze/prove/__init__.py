"""Whether the database does as intended, and whether a check would notice if it didn't."""
