"""What the first request of a process costs: ``python -m benchmarks.first_request``.

Each process imports its libraries, makes an engine, and runs one transaction.  ``plain.py`` is SQLAlchemy
alone, logged in as the role itself; ``bound.py`` has a policy and a bound session.  They take turns.  The
clocks start after the interpreter.
"""
