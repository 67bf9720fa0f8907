"""Runs the processes by turns."""

import argparse

from benchmarks.first_request.measure import first_request, imported
from sqla_rls.testing.postgres import find_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    with find_server() as server:
        found = first_request(server, arguments.rounds)
    print(f"first request: plain {found.plain * 1000:.0f} ms, bound {found.bound * 1000:.0f} ms")
    print(f"ratio {found.ratio:.2f}, of the CPU time {found.cpu:.2f}")
    print(f"import of sqla_rls: {imported(arguments.rounds):.0f} ms of CPU beyond SQLAlchemy")


if __name__ == "__main__":
    main()
