"""CPU time of this process, its children, and a Postgres server on this machine.

Wall time depends on the load, too.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.server.postgres import Server

_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(slots=True)
class Cost:
    """Seconds: of CPU on both sides, and of the clock."""

    client: float = 0.0
    server: float = 0.0
    wall: float = 0.0

    @property
    def cpu(self) -> float:
        """The seconds of CPU on both sides."""
        return self.client + self.server


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures blocks; Linux only.

    Attributes:
        postmaster: the process of the server.
    """

    postmaster: int

    @classmethod
    def of(cls, server: Server) -> Meter:
        """Return the meter of *server*."""
        with create_engine(server.url(), poolclass=NullPool).connect() as superuser:
            content = superuser.exec_driver_sql("SELECT pg_read_file('postmaster.pid')").scalar_one()
        return cls(int(str(content).split()[0]))

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Give a cost that is known when the block ends."""
        cost = Cost()
        client, server, wall = _client(), self._server(), time.perf_counter()
        yield cost
        cost.wall = time.perf_counter() - wall
        cost.client, cost.server = _client() - client, self._server() - server

    def _server(self) -> float:
        """The CPU time of the server's processes: those that ended are in the times of their parent."""
        found = 0.0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name of the program, in parentheses, may have spaces.
                fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            times = [int(one) for one in fields[11:15]]
            if int(path.parent.name) == self.postmaster:
                found += sum(times)
            elif int(fields[1]) == self.postmaster:
                found += sum(times[:2])
        return found / _TICKS


def _client() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
