"""What a policy costs, beside the WHERE that it saves writing: ``python -m benchmarks.policies``.

Each statement runs three ways, by turns on one connection: as the superuser with the condition written
by hand, under a policy of this library, and under the one that drizzle-orm/neon's ``authUid`` would
write, with the comparison inside the SELECT.  Role and claims are bound before the clock starts.
``python -m benchmarks.policies --help`` says more.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import BigInteger, Column, ColumnElement, MetaData, Table, Text, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, Role, auth_uid, jwt_claim, member_of
from sqla_rls.ddl.roles import DropRole
from sqla_rls.server.installation import installations
from sqla_rls.server.postgres import URL_VARIABLE, Server

EPILOG = """\
times are medians, in ms; ratios are medians of the rounds', to the condition by hand; ! marks one that
misses its goal; "anew" is a statement that is sent as text each time, "prepared" one that isn't, as
psycopg sends it from the sixth time on; "runs" is how often drizzle's had its turn, 0 for one that was
ended when it had taken --patience seconds.  A plan without the shape that it should have, or a row too many
or too few, ends the run with an error; a time doesn't.
"""
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "autovacuum": "off"}
#: Of each person, and so of the caller.
GROUPS = 5
CALLER = 7
MIN_ROUNDS, MAX_ROUNDS = 21, 200


@dataclass(frozen=True)
class Subject:
    """A policy of this library, drizzle's, and what people write by hand.

    *goal* is the highest ratio of the first to the last; *column* is the one that an index helps with.
    """

    name: str
    goal: float
    column: str
    policy: Callable[[Table, Table], ColumnElement[bool]]
    drizzle: str
    by_hand: str

    @property
    def role(self) -> Role:
        return Role(f"benchmark_{self.name}")

    @property
    def drizzle_role(self) -> Role:
        return Role(f"benchmark_{self.name}_drizzle")


SUBJECTS = [
    Subject(
        name="auth_uid",
        goal=1.05,
        column="owner",
        policy=lambda table, members: auth_uid(table.c.owner),
        drizzle="(select auth.user_id() = {table}.owner)",
        by_hand="owner = %(owner)s",
    ),
    Subject(
        name="jwt_claim",
        goal=1.05,
        column="org_id",
        policy=lambda table, members: jwt_claim("org", "id", type_=BigInteger) == table.c.org_id,
        drizzle="(select (auth.session() -> 'org' ->> 'id')::bigint = {table}.org_id)",
        by_hand="org_id = %(org_id)s",
    ),
    Subject(
        name="member_of",
        goal=1.25,
        column="org_id",
        policy=lambda table, members: member_of(table.c.org_id, members.c.org_id, members.c.user_id),
        drizzle="(select auth.user_id() in (select user_id from members where org_id = {table}.org_id))",
        by_hand="org_id IN (SELECT org_id FROM members WHERE user_id = %(owner)s)",
    ),
]
ROLES = [role for subject in SUBJECTS for role in (subject.role, subject.drizzle_role)]

#: ``{where}`` is the condition by hand, or true.
STATEMENTS = {
    "read": "SELECT * FROM {table} WHERE {where}",
    "count": "SELECT count(*) FROM {table} WHERE {where}",
    "page": "SELECT * FROM {table} WHERE {where} AND id > %(id)s ORDER BY id LIMIT 20",
    "update": "UPDATE {table} SET body = 'new' WHERE {where} AND id = %(id)s",
    "insert": "INSERT INTO {table} VALUES (%(new_id)s, %(owner)s, %(org_id)s, 'new')",
}


def models() -> MetaData:
    metadata = MetaData()
    members = Table(
        "members",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("org_id", BigInteger, primary_key=True),
        Policy("own", "SELECT", ROLES, using=auth_uid("user_id")),
    )
    for name in ("indexed", "unindexed"):
        table = Table(
            name,
            metadata,
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("owner", Text, nullable=False, index=name == "indexed"),
            Column("org_id", BigInteger, nullable=False, index=name == "indexed"),
            Column("body", Text, nullable=False),
        )
        for subject in SUBJECTS:
            for role, using in (
                (subject.role, subject.policy(table, members)),
                (subject.drizzle_role, subject.drizzle.format(table=name)),
            ):
                Policy(role.name, roles=role, using=using)._set_parent_with_dispatch(table)
    return metadata


def fill(connection: psycopg.Connection[Any], rows: int, owners: int) -> None:
    """Rows of every owner and group lie all over the tables."""
    # Where a commit isn't on disk yet, VACUUM doesn't mark its pages as visible to all.
    connection.execute("SET synchronous_commit = on")
    connection.execute(
        "INSERT INTO members SELECT 'user_' || u, (u + n * 191) %% %(owners)s"
        " FROM generate_series(0, %(owners)s - 1) AS u, generate_series(0, %(groups)s - 1) AS n",
        {"owners": owners, "groups": GROUPS},
    )
    for table in ("indexed", "unindexed"):
        connection.execute(
            (
                f"INSERT INTO {table} SELECT id, 'user_' || id * 7919 %% %(owners)s, id * 7919 %% %(owners)s,"
                " repeat('x', 60) FROM generate_series(1, %(rows)s::bigint) AS id"
            ).encode(),
            {"rows": rows, "owners": owners},
        )
    for table in ("indexed", "unindexed", "members"):
        connection.execute(f"VACUUM (ANALYZE) {table}".encode())


@dataclass(frozen=True)
class Way:
    """A statement as one role sends it."""

    role: str
    statement: bytes

    @classmethod
    def of(cls, role: str, name: str, table: str, where: str = "true") -> Way:
        # The comment makes it a prepared statement of its own: a plan is made for one role.
        return cls(role, f"{STATEMENTS[name].format(table=table, where=where)} /* {role} */".encode())

    def become(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"SET ROLE {self.role}".encode())


@dataclass(frozen=True)
class Times:
    """Medians, in ms, of the condition by hand and of a policy, and the median of the rounds' ratios."""

    by_hand: float
    policy: float
    ratio: float
    runs: int

    @classmethod
    def of(cls, by_hand: list[float], policy: list[float], *, runs: int | None = None) -> Times:
        medians = statistics.median(by_hand), statistics.median(policy)
        if len(policy) == len(by_hand):
            ratio = statistics.median(ours / theirs for theirs, ours in zip(by_hand, policy, strict=True))
        else:
            ratio = medians[1] / medians[0]
        return cls(
            by_hand=medians[0] * 1000,
            policy=medians[1] * 1000,
            ratio=ratio,
            runs=len(policy) if runs is None else runs,
        )


@dataclass(frozen=True)
class Figures:
    server: str
    functions: str
    table: str
    statement: str
    policy: str
    goal: float
    anew: Times
    prepared: Times
    drizzle: Times
    plan: str
    drizzle_plan: str
    plan_is_right: bool

    HEADER = (
        f"{'table':10}{'statement':10}{'policy':10}{'by hand':>10}{'policy':>9}{'ratio':>7}"
        f"{'prepared':>11}{'policy':>9}{'ratio':>7}{'drizzle':>12}{'ratio':>9}  runs  plan | drizzle's"
    )

    @property
    def goals(self) -> list[bool]:
        return [times.ratio <= self.goal for times in (self.anew, self.prepared)]

    def __str__(self) -> str:
        columns = [f"{self.table:10}{self.statement:10}{self.policy:10}"]
        for times, met in zip((self.anew, self.prepared), self.goals, strict=True):
            columns.append(f"{times.by_hand:10.3f}{times.policy:9.3f}{times.ratio:7.2f}{' ' if met else '!'}")
        columns.append(f"{self.drizzle.policy:11.3f}{self.drizzle.ratio:9.2f}{self.drizzle.runs:6}  ")
        columns.append(f"{self.plan} | {self.drizzle_plan}{'' if self.plan_is_right else '  WRONG'}")
        return "".join(columns)


class Bench:
    """One database, in which one caller is bound."""

    def __init__(
        self, connection: psycopg.Connection[Any], rows: int, owners: int, *, seconds: float, patience: float
    ) -> None:
        self.connection, self.seconds, self.patience = connection, seconds, patience
        owner = f"user_{CALLER % owners}"
        ids = "SELECT id FROM unindexed WHERE owner = %s ORDER BY id"
        own = [id_ for (id_,) in connection.execute(ids, (owner,))]
        self.values = {"owner": owner, "org_id": CALLER % owners, "id": own[len(own) // 2]}
        self.new_ids = itertools.count(rows + 1)
        claims = json.dumps({"sub": owner, "role": "authenticated", "org": {"id": self.values["org_id"]}})
        connection.execute("SELECT set_config('request.jwt.claims', %s, false)", (claims,))

    def run(self, way: Way, *, times: int = 1, prepare: bool = False) -> tuple[float, Any]:
        """The seconds that each of *times* takes, until the answer is here; the last one's rows or count."""
        way.become(self.connection)
        cursor = self.connection.cursor()
        begin = time.perf_counter()
        for _ in range(times):
            cursor.execute(way.statement, {**self.values, "new_id": next(self.new_ids)}, prepare=prepare)
        seconds = (time.perf_counter() - begin) / times
        return seconds, sorted(cursor.fetchall()) if cursor.description else cursor.rowcount

    def plan(self, way: Way, columns: Sequence[str]) -> str:
        """Which of *columns* an index is searched for, and how often the caller is asked for."""
        way.become(self.connection)
        rows = self.connection.execute(b"EXPLAIN " + way.statement, {**self.values, "new_id": 0})
        lines = "\n".join(line for (line,) in rows)
        searched = [column for column in columns if re.search(rf"Index Cond: \(+{column} ", lines)]
        asked = [kind for kind in ("InitPlan", "SubPlan") if kind in lines]
        return " ".join([f"Index Cond on {searched[0]}" if searched else "no index", *asked])

    def run_if_it_lasts(self, way: Way, otherwise: tuple[float, Any]) -> tuple[bool, tuple[float, Any]]:
        """Whether *way* was done before we lost patience; what ``run`` says, or else *otherwise*'s answer."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL("SET statement_timeout = {}").format(int(self.patience * 1000)))
            try:
                return True, self.run(way)
            except psycopg.errors.QueryCanceled:
                return False, (self.patience, otherwise[1])
            finally:
                cursor.execute("RESET statement_timeout")

    def compare(self, subject: Subject, statement: str, table: str) -> dict[str, Any]:
        where = "true" if statement == "insert" else subject.by_hand
        by_hand = Way.of("NONE", statement, table, where)
        policy = Way.of(subject.role.name, statement, table)
        drizzle = Way.of(subject.drizzle_role.name, statement, table)

        answers = [self.run(way) for way in (by_hand, policy)]
        patient, answer = self.run_if_it_lasts(drizzle, answers[0])
        if not answers[0][1] == answers[1][1] == answer[1]:
            raise SystemExit(f"{subject.name}: {statement} on {table} doesn't give the same rows")
        first = [*(self.run(way)[0] for way in (by_hand, policy)), answer[0]]
        anew = self.rounds([by_hand, policy, drizzle], first, prepare=False)
        prepared = self.rounds([by_hand, policy], first, prepare=True)

        columns = (subject.column, "id")
        plan = self.plan(policy, columns)
        return {
            "anew": Times.of(*anew[:2]),
            "drizzle": Times.of(anew[0], anew[2] or [first[2]], runs=len(anew[2]) or int(patient)),
            "prepared": Times.of(*prepared),
            "plan": plan,
            "drizzle_plan": self.plan(drizzle, columns),
            "plan_is_right": plan in right_plans(subject, statement, table),
        }

    def rounds(self, ways: list[Way], first: list[float], *, prepare: bool) -> list[list[float]]:
        """The times of each way, by turns; the third has fewer turns where it takes long."""
        quick = max(first[:2])
        times = max(1, min(10, int(0.005 / quick)))
        rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(self.seconds / (2 * times * quick))))
        turns = [rounds, rounds, min(rounds, int(self.seconds / (times * first[-1])))]
        if prepare:
            for way in ways:
                self.run(way, times=10, prepare=True)  # the server settles for one plan
        taken: list[list[float]] = [[] for _ in ways]
        for number in range(rounds):
            order = list(range(len(ways)))
            for place in order if number % 2 else reversed(order):
                if number < turns[place]:
                    taken[place].append(self.run(ways[place], times=times, prepare=prepare)[0])
        return taken


def right_plans(subject: Subject, statement: str, table: str) -> list[str]:
    """The caller is asked for once, and an index is searched where there is one to search."""
    own, key, none = f"Index Cond on {subject.column}", "Index Cond on id", "no index"
    right = {"page": [own, key], "update": [key], "insert": [none]}.get(statement)
    return [f"{plan} InitPlan" for plan in right or [own if table == "indexed" else none]]


def databases() -> Iterator[tuple[str, str, psycopg.Connection[Any]]]:
    """Each server with each kind of functions that it has: their names, and a superuser's connection."""
    given = os.environ.get(URL_VARIABLE)
    for found in [None] if given else installations():
        with Server.connect(given) if given else Server.start(found, settings=SETTINGS) as server:
            for functions in ("portable", "pg_session_jwt"):
                name = server.create_database()
                engine = create_engine(server.url(name), poolclass=NullPool)
                offered = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_session_jwt'"
                with engine.begin() as connection:
                    if functions == "portable":
                        # A schema that is there already keeps the extension out.
                        connection.execute(text("CREATE SCHEMA auth"))
                    elif not connection.scalar(text(offered)):
                        continue
                    models().create_all(connection)
                url = server.url(name).set(drivername="postgresql")
                with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as raw:
                    yield f"PostgreSQL {raw.info.parameter_status('server_version')}", functions, raw
                server.drop_database(name)
            with create_engine(server.url(), poolclass=NullPool).begin() as connection:
                for role in ROLES:
                    connection.execute(DropRole(role.name))


def writes(server: Server, rows: int = 20_000, seconds: float = 2) -> dict[str, float]:
    """The ratios of INSERT of one row, and of UPDATE by key, to the same without policies."""
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        # A schema that is there already keeps the extension out.
        connection.execute(text("CREATE SCHEMA auth"))
        models().create_all(connection)
    url = server.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as raw:
        fill(raw, rows, owners=100)
        bench = Bench(raw, rows, owners=100, seconds=seconds, patience=5)
        found = {}
        for statement in ("insert", "update"):
            by_hand = Way.of(
                "NONE", statement, "indexed", "true" if statement == "insert" else SUBJECTS[0].by_hand
            )
            policy = Way.of(SUBJECTS[0].role.name, statement, "indexed")
            first = [bench.run(way)[0] for way in (by_hand, policy)]
            found[statement] = Times.of(*bench.rounds([by_hand, policy], first, prepare=True)).ratio
    server.drop_database(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--owners", type=int, default=1_000, help="and as many groups")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the rounds of one statement")
    parser.add_argument("--patience", type=float, default=60.0, help="with one of drizzle's, in seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    gc.disable()
    figures: list[Figures] = []
    for server, functions, connection in databases():
        fill(connection, arguments.rows, arguments.owners)
        bench = Bench(
            connection,
            arguments.rows,
            arguments.owners,
            seconds=arguments.seconds,
            patience=arguments.patience,
        )
        print(
            f"\n{server}, functions: {functions}; {arguments.rows:,} rows, {arguments.owners:,} owners; "
            f"the caller is in {GROUPS} groups\n{Figures.HEADER}"
        )
        for statement, table, subject in itertools.product(STATEMENTS, ("indexed", "unindexed"), SUBJECTS):
            compared = bench.compare(subject, statement, table)
            figures.append(
                Figures(server, functions, table, statement, subject.name, subject.goal, **compared)
            )
            print(figures[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in figures], indent=1))
    for name, of_name in itertools.groupby(
        sorted(figures, key=lambda one: (one.policy, one.statement)), lambda one: (one.policy, one.statement)
    ):
        goals = [met for one in of_name for met in one.goals]
        print(f"{' '.join(name):20} goals met: {sum(goals)} of {len(goals)}")
    if wrong := sum(not one.plan_is_right for one in figures):
        raise SystemExit(f"{wrong} plans without the shape that they should have")


if __name__ == "__main__":
    main()
