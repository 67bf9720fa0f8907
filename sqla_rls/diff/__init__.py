"""What must change: two Snapshots in, changes out, without a connection."""
