"""How each statement is spelled."""
