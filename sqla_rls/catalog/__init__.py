"""What a database has: readers that return values."""
