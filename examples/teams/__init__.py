"""Documents of teams: roles within teams, sharing, public rows, a trash, and a support role."""
