"""Many callers on few connections, with faults: does each see its own rows, and only those?"""
