"""The differences between two Snapshots, without a connection."""
