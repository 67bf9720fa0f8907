"""What a model says: policies, conditions, privileges, functions and views, as values of a Snapshot."""
