"""What may happen in a turn, and how often: reads, writes, refusals, faults."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias

import psycopg
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.exc import TimeoutError as PoolTimeout

from benchmarks.soak.turn import (
    SET,
    ListenerFailed,
    Turn,
    Violation,
    check_nothing_left,
    failing,
    fault_of,
    sever,
    token,
)
from benchmarks.soak.world import Fact, Note, auditor
from sqla_rls import Caller
from sqla_rls.exc import (
    BindingError,
    CallerChanged,
    CallerRequired,
    ExpiredToken,
    InvalidToken,
    TransactionInProgress,
    TransactionRefused,
)

Operation: TypeAlias = Callable[[Turn], None]

_INSUFFICIENT_PRIVILEGE: Final = "42501"


def only_mine(turn: Turn, owners: list[str]) -> None:
    foreign = [owner for owner in owners if owner != turn.me.subject]
    turn.tally["seen", "rows of another caller"] += len(foreign)
    if foreign:
        raise Violation(f"{turn.me.subject} got {foreign}")


def end(turn: Turn) -> None:
    if turn.chance.random() < 0.7:
        turn.session.commit()
    else:
        turn.session.rollback()


# As a person should


def read(turn: Turn) -> None:
    turn.check()
    end(turn)


def read_entities(turn: Turn) -> None:
    facts = turn.session.scalars(select(Fact)).all()
    only_mine(turn, [fact.user_id for fact in facts])
    turn.check()
    turn.session.commit()
    # Expired: loaded anew, in a transaction of its own.
    only_mine(turn, [fact.user_id for fact in facts])
    turn.check()


def write(turn: Turn) -> None:
    only_mine(turn, list(turn.session.scalars(delete(Note).returning(Note.user_id))))
    turn.check()
    turn.session.add_all([Note(author=turn.me.subject) for _ in range(turn.chance.randrange(1, 4))])
    turn.session.flush()
    only_mine(
        turn, list(turn.session.scalars(update(Note).values(author=turn.me.subject).returning(Note.user_id)))
    )
    end(turn)
    only_mine(turn, list(turn.session.scalars(select(Note.user_id))))
    turn.check()


def bulk(turn: Turn) -> None:
    rows = [{"author": turn.me.subject}] * 20
    only_mine(turn, list(turn.session.scalars(insert(Note).returning(Note.user_id), rows)))
    turn.check()
    turn.session.rollback()


def stream(turn: Turn) -> None:
    turn.check()
    found = turn.session.scalars(select(Fact.user_id), execution_options={"yield_per": 2})
    only_mine(turn, list(found))
    end(turn)


def savepoints(turn: Turn) -> None:
    session = turn.session
    turn.check()
    with session.begin_nested():
        session.add(Note(author=turn.me.subject))
        session.flush()
        with turn.refused("forged write", DBAPIError, _INSUFFICIENT_PRIVILEGE), session.begin_nested():
            forge(turn)
        turn.check()
        session.begin_nested().rollback()
    turn.check()
    end(turn)


def leave_a_setting(turn: Turn) -> None:
    turn.check()
    turn.session.execute(SET, {"me": turn.me.subject})
    turn.tally["checks", "settings left"] += 1
    end(turn)
    turn.check()


def take_turns(turn: Turn) -> None:
    """Two people, one after the other, in one session."""
    turn.check()
    end(turn)
    other = turn.another()
    turn.become(other)
    turn.check(other)
    end(turn)


def bring_a_token(turn: Turn) -> None:
    turn.session.close()  # which forgets the caller; now it asks
    token.set(turn.token)
    turn.check()
    end(turn)
    turn.check()


def audit(turn: Turn) -> None:
    turn.become(Caller(role=auditor.name))
    turn.check_auditor()


def read_anonymously(turn: Turn) -> None:
    turn.become(Caller.anonymous())
    turn.check_anonymous()


def share(turn: Turn) -> None:
    """Another session of mine joins my transaction, which goes on."""
    turn.check()
    with turn.beside(turn.me, turn.session.connection()) as also:
        also.check()
        also.session.commit()
        turn.check()
    end(turn)
    turn.check()


def join(turn: Turn) -> None:
    """People take turns in a transaction of the connection's own, which is nobody's in between."""
    with turn.engine.connect() as connection, connection.begin():
        for who in (turn.me, turn.another()):
            with turn.beside(who, connection) as joined:
                joined.check()
                joined.session.commit()
            check_nothing_left(connection, turn.chance, turn.tally, in_transaction=True)


# As nobody should


def join_anothers(turn: Turn) -> None:
    turn.check()
    with turn.beside(turn.another(), turn.session.connection()) as theirs:
        with theirs.unbound("another caller's transaction", TransactionInProgress):
            theirs.check()
        with theirs.refused("going on", TransactionRefused):
            theirs.check()
    turn.check()
    end(turn)
    turn.check()


def lose_to_a_savepoint(turn: Turn) -> None:
    """What is bound under a savepoint of the connection's own goes with it."""
    with turn.engine.connect() as connection:
        root, outer = connection.begin(), connection.begin_nested()
        with turn.beside(turn.me, connection) as joined:
            joined.check()
            with warnings.catch_warnings():
                # SQLAlchemy says that the session's own savepoint is gone.
                warnings.simplefilter("ignore", SAWarning)
                outer.rollback()
            with joined.refused("binding rolled back", TransactionRefused):
                joined.check()
            root.rollback()


def end_by_text(turn: Turn) -> None:
    """A transaction that SQL has begun is bound to nobody."""
    turn.check()
    chained = turn.chance.choice(["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
    turn.session.execute(text(chained))
    if turn.direct:
        with turn.refused("ended by text", TransactionRefused):
            turn.check()
    else:
        with turn.refused("ended by text, seen by Postgres", DBAPIError, _INSUFFICIENT_PRIVILEGE):
            turn.check()
    turn.session.rollback()
    turn.check()
    end(turn)


def replace_the_cursors(turn: Turn) -> None:
    """As a tracing library does, for the connection that I get and all who get it meanwhile."""
    driver_connection: Any = turn.session.connection().connection.driver_connection
    if not isinstance(driver_connection, psycopg.Connection | psycopg.AsyncConnection):
        turn.check()
        return
    is_async = isinstance(driver_connection, psycopg.AsyncConnection)
    connection: Any = driver_connection
    own = connection.cursor_factory
    connection.cursor_factory = psycopg.AsyncClientCursor if is_async else psycopg.ClientCursor
    try:
        turn.check()
        turn.session.add(Note(author=turn.me.subject))
        turn.session.flush()
        turn.session.rollback()
        turn.check()
        turn.session.commit()
    finally:
        connection.cursor_factory = own
    turn.tally["checks", "cursors of another class"] += 1


def bring_another_tenants_token(turn: Turn) -> None:
    """What I have loaded isn't for the same subject of another tenant."""
    turn.session.close()
    token.set(replace(turn.me, claims={**turn.me.claims, "org_id": "mine"}))
    turn.check()
    turn.session.commit()
    token.set(replace(turn.me, claims={**turn.me.claims, "org_id": "theirs"}))
    turn.session.add(Note(author=turn.me.subject))
    with turn.unbound("another tenant", CallerChanged):
        turn.session.commit()
    turn.session.rollback()


def forge(turn: Turn) -> None:
    turn.session.execute(insert(Note).values(author=turn.me.subject, user_id=turn.another().subject))


def forge_note(turn: Turn) -> None:
    turn.check()
    with turn.refused("forged write", DBAPIError, _INSUFFICIENT_PRIVILEGE):
        forge(turn)
    turn.session.rollback()
    turn.check()


def write_facts(turn: Turn) -> None:
    turn.check()
    with turn.refused("forbidden write", DBAPIError, _INSUFFICIENT_PRIVILEGE):
        turn.session.execute(insert(Fact).values(user_id=turn.me.subject))
    turn.session.rollback()
    only_mine(turn, list(turn.session.scalars(update(Fact).values(user_id="x").returning(Fact.user_id))))
    turn.check()


def go_on(turn: Turn) -> None:
    """Refused once, nothing is read until a rollback; then all is well for whom it may be."""
    with turn.refused("going on", TransactionRefused):
        turn.session.execute(text("SELECT 1"))
    with turn.refused("going on", TransactionRefused):
        turn.session.connection(bind_arguments={"bind": turn.session.bind})
    turn.session.rollback()
    turn.become(turn.me)
    turn.check()


def nobody(turn: Turn) -> None:
    turn.session.close()
    with turn.unbound("no caller", CallerRequired):
        turn.check()
    go_on(turn)


def bring_a_forged_token(turn: Turn) -> None:
    header, payload, signature = turn.token.split(".")
    turn.session.close()
    token.set(f"{header}.{payload}.{signature[::-1]}")
    with turn.unbound("forged token", InvalidToken):
        turn.check()
    go_on(turn)


def expired(turn: Turn) -> None:
    turn.become(replace(turn.me, expires_at=time.time() - 1))
    with turn.unbound("expired caller", ExpiredToken):
        turn.check()
    go_on(turn)


def wrong_role(turn: Turn) -> None:
    role = turn.chance.choice(["nobody_has_it", "pg_monitor", "postgres"])
    turn.become(Caller(role=role, subject=turn.me.subject))
    with turn.unbound("wrong role", BindingError):
        turn.check()
    go_on(turn)


# Faults


def fail_in_sql(turn: Turn) -> None:
    turn.check()
    with turn.ends_in("fault", "error in SQL", DBAPIError, "22012"):
        turn.session.execute(text("SELECT 1 / 0"))
    turn.session.rollback()
    turn.check()


def time_out(turn: Turn) -> None:
    turn.check()
    turn.session.execute(text("SET LOCAL statement_timeout = 5"))
    with turn.ends_in("fault", "statement timeout", DBAPIError, "57014"):
        turn.session.execute(text("SELECT pg_sleep(10)"))
    turn.session.rollback()
    turn.check()


def drop_in_transaction(turn: Turn) -> None:
    turn.check()
    sever(turn.session.connection())
    with turn.ends_in("fault", "connection dropped in a transaction", DBAPIError):
        turn.check()
    turn.session.rollback()
    turn.check()


def drop_in_pool(turn: Turn) -> None:
    with turn.engine.connect() as connection:
        sever(connection)
    turn.tally["fault", "connection dropped in the pool"] += 1
    turn.check()


def fail_in_listener(turn: Turn) -> None:
    """One of the application's own: of a transaction's begin, of a connection's checkout."""
    name = turn.chance.choice(["after_begin", "checkout"])
    failing.set(name)
    with turn.ends_in("fault", f"error in listener {name}", ListenerFailed):
        turn.check()
    if turn.chance.random() < 0.5:
        turn.session.rollback()
    turn.check()


def fail_in_on_bind(turn: Turn) -> None:
    failing.set("on_bind")
    with turn.unbound("error in on_bind", ListenerFailed):
        turn.check()
    go_on(turn)


def fail_in_reset(turn: Turn) -> None:
    """Which SQLAlchemy logs, and gives up the connection."""
    turn.check()
    failing.set("reset")
    turn.session.rollback()
    if failing.get():
        failing.set(None)
        raise Violation("listener reset wasn't called")
    turn.tally["fault", "error in listener reset"] += 1
    turn.check()


def exhaust_pool(turn: Turn) -> None:
    """Take connections until there are no more."""
    taken = []
    try:
        with turn.ends_in("fault", "pool exhausted", PoolTimeout):
            while True:
                taken.append(turn.engine.connect())
    finally:
        for connection in taken:
            connection.close()
    turn.check()


OPERATIONS: Final[dict[Operation, float]] = {
    read: 40,
    read_entities: 8,
    write: 10,
    bulk: 3,
    stream: 5,
    savepoints: 5,
    leave_a_setting: 10,
    take_turns: 6,
    bring_a_token: 5,
    audit: 2,
    read_anonymously: 3,
    forge_note: 2,
    write_facts: 2,
    nobody: 3,
    bring_a_forged_token: 1,
    expired: 2,
    wrong_role: 2,
    share: 2,
    join: 1,
    join_anothers: 2,
    lose_to_a_savepoint: 1,
    bring_another_tenants_token: 2,
    end_by_text: 2,
    replace_the_cursors: 2,
}
FAULTS: Final[dict[Operation, float]] = {
    fail_in_sql: 0.5,
    time_out: 0.2,
    drop_in_transaction: 0.15,
    drop_in_pool: 0.15,
    fail_in_listener: 0.4,
    fail_in_on_bind: 0.3,
    fail_in_reset: 0.15,
    exhaust_pool: 0.1,
}


def choose(turn: Turn, *, faults: bool) -> Operation:
    operations = OPERATIONS | FAULTS if faults else OPERATIONS
    (operation,) = turn.chance.choices(list(operations), list(operations.values()))
    return operation


def play(turn: Turn, *, faults: bool) -> None:
    """A turn, to its end or to the fault that ends it; after which it is my turn all the same."""
    operation = choose(turn, faults=faults)
    while True:
        failing.set(None)
        token.set(None)
        try:
            turn.become(turn.me)
            operation(turn)
        except Exception as error:
            if (fault := fault_of(error)) is None:
                raise
            turn.tally["fault", fault] += 1
            turn.session.rollback()
            operation = read
        else:
            return
