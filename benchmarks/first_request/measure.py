"""The figures of the processes."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.schema import CreateSchema

from benchmarks.contenders import PEOPLE, create_database
from sqla_rls.testing.postgres import Server

_HERE: Final = Path(__file__).parent
#: An engine for Postgres imports the dialect, so it counts as SQLAlchemy's.
_SQLALCHEMY: Final = "import sqlalchemy, sqlalchemy.orm, sqlalchemy.dialects.postgresql"


class FirstRequest(NamedTuple):
    """Medians of a request, in seconds; *ratio* and *cpu* are medians of the rounds' ratios."""

    plain: float
    bound: float
    ratio: float
    cpu: float


def first_request(server: Server, rounds: int) -> FirstRequest:
    # A schema that is there already keeps the extension out.
    database = create_database(server, CreateSchema("auth"))
    url = server.url(database).set(drivername="postgresql+psycopg", password="bench")
    person = PEOPLE[0]
    claims = person.claims_json.replace("\\", "\\\\").replace(" ", "\\ ")
    as_role = url.set(username="bench_plain").update_query_dict(
        {"options": f"-c request.jwt.claims={claims}"}
    )
    urls = {"plain": as_role, "bound": url.set(username="bench_app")}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, each in urls.items():
            program = [str(_HERE / f"{name}.py"), each.render_as_string(hide_password=False)]
            cpu, seconds, rows = json.loads(_run(*program, str(person.subject)))
            if rows != [person.subject]:
                raise SystemExit(f"{person.subject} was shown the notes of {rows}")
            if number:  # the first one compiles the modules
                taken[name].append((cpu, seconds))
    server.drop_database(database)
    pairs = [*zip(taken["bound"], taken["plain"], strict=True)]
    return FirstRequest(
        plain=statistics.median(seconds for _, seconds in taken["plain"]),
        bound=statistics.median(seconds for _, seconds in taken["bound"]),
        ratio=statistics.median(bound[1] / plain[1] for bound, plain in pairs),
        cpu=statistics.median(bound[0] / plain[0] for bound, plain in pairs),
    )


def imported(rounds: int) -> float:
    """The CPU time of ``import sqla_rls`` beyond SQLAlchemy's, in milliseconds."""
    both = f"{_SQLALCHEMY}, sqla_rls"
    _run("-c", both)
    return statistics.median(-_cpu(_SQLALCHEMY) + _cpu(both) for _ in range(rounds)) * 1000


def _cpu(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(*arguments: str) -> str:
    # An installed library has bytecode.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout
