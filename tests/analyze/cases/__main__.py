"""The verdicts that the evidence gives, beside those that are expected: ``python -m tests.analyze.cases``."""

from __future__ import annotations

import sys
import time
from typing import Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server, find_server
from tests.analyze.cases import CASES
from tests.analyze.cases.evidence import gather


def connect(server: Server) -> psycopg.Connection[Any]:
    name = server.create_database()
    with create_engine(server.url(name), poolclass=NullPool).begin() as connection:
        connection.execute(CreateAuthFunctions())
    url = server.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)


def main() -> None:
    words = " ".join(sys.argv[1:])
    total = 0.0
    with find_server() as server, connect(server) as connection:
        for case in CASES:
            if words not in case.name:
                continue
            begin = time.perf_counter()
            try:
                found = gather(connection, case)
            except psycopg.Error as error:
                print(f"!! {case.name}: {error}")
                continue
            took = time.perf_counter() - begin
            total += took
            expected = {key: verdict for key, verdict in case.expected.items() if verdict != "unknown"}
            is_right = dict(found.verdicts) == expected
            print(
                f"{'ok' if is_right else 'NO'} {took:5.2f} s {found.worlds:3} worlds "
                f"{found.statements:5} statements: {case.name}"
            )
            if not is_right or words:
                for key in {**expected, **found.verdicts}:
                    print("     ", *key, expected.get(key), "->", found.verdicts.get(key))
                for witness in found.witnesses:
                    print("        ", witness.as_json())
    print(f"{len(CASES)} cases, {total:.1f} s")


if __name__ == "__main__":
    main()
