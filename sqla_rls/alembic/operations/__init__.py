"""The operations of a migration, one module for each kind of object."""
