"""Why a caller may, or may not, read or write a row, and what an expression says of it."""
