"""The facts beside rows, callers and definitions that SQL may ask for: chance, the session, the catalog."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqla_rls.analyze.vocabulary.terms import Vocabulary

#: Functions that give another answer each time, by chance, by a counter or by the clock.
_VARYING: Final = frozenset(
    {
        *("random", "random_normal", "array_sample", "array_shuffle", "clock_timestamp", "timeofday"),
        *("gen_random_uuid", "uuidv4", "uuidv7", "nextval", "currval", "lastval", "setval"),
        *("pg_backend_pid", "pg_current_xact_id", "pg_current_xact_id_if_assigned", "pg_current_snapshot"),
        *("txid_current", "txid_current_if_assigned", "txid_current_snapshot", "inet_client_port"),
        *("pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn"),
    }
)
#: Those of extensions, in any schema.
_VARYING_OF_EXTENSIONS: Final = frozenset(
    {"uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4", "gen_random_bytes", "gen_salt"}
)
#: The version of a row, and its place.
_SYSTEM_COLUMNS: Final = frozenset({"xmin", "xmax", "cmin", "cmax", "ctid"})
#: Functions about the session, or the server.
_SESSION: Final = frozenset(
    {
        *("inet_client_addr", "inet_server_addr", "inet_server_port", "version", "current_database"),
        *("current_query", "current_schema", "current_schemas", "get_current_ts_config"),
        *("pg_postmaster_start_time", "pg_conf_load_time", "pg_is_in_recovery", "pg_client_encoding"),
        *("pg_trigger_depth", "getdatabaseencoding"),
    }
)
_SESSION_KEYWORDS: Final = frozenset({"current_catalog", "current_schema"})
#: The role that logged in, which is no caller in a world.
_LOGIN: Final = frozenset({"session_user", "system_user"})
_NOW: Final = frozenset({"now", "statement_timestamp", "transaction_timestamp"})
_NOW_KEYWORDS: Final = frozenset(
    {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
)
#: Functions that return a part of a moment.
_PARTS_OF_TIME: Final = frozenset({"extract", "date_part", "to_char", "date_trunc"})
_POSTGRES: Final = ((), ("pg_catalog",))
#: Words of the functions and relations that answer from the catalog; pg_has_role() has a check of its own.
_CATALOG: Final = re.compile(
    r"\bpg_(?!catalog\b|temp\b|has_role\b|typeof\b|sleep\b|column_size\b|advisory|try_advisory|backend_pid\b"
    r"|current_|input_is_valid\b|client_encoding\b|postmaster_start_time\b)"
    r"|\binformation_schema\b|\bhas_\w+_privilege\b|\brow_security_active\b|\b\w+_description\b"
    r"|\bto_reg|\breg(class|collation|config|dictionary|namespace|oper|operator|proc|procedure|role|type)\b"
    r"|\bformat_type\b|\b(acl|make)explode\b",
    re.IGNORECASE,
)


def asks_for_catalog(sql: str) -> bool:
    """Return whether *sql* may ask for privileges, comments, or other facts of the catalog."""
    return _CATALOG.search(sql) is not None


def varies(name: str) -> bool:
    """Return whether that function of Postgres has another value each time."""
    return name in _VARYING


def varying(vocabulary: Vocabulary) -> str | None:
    """Return why an answer by *vocabulary* is that of one moment or session only; None if it isn't."""
    found = _called(vocabulary, _VARYING)
    found |= {f"{name[-1]}()" for name in vocabulary.functions if name[-1] in _VARYING_OF_EXTENSIONS}
    if found or (found := set(vocabulary.names & _SYSTEM_COLUMNS)):
        return f"{min(found)} has another value each time"
    login = vocabulary.keywords & _LOGIN | {name[-1] for name in vocabulary.functions} & _LOGIN
    if login or "session_authorization" in vocabulary.other_settings:
        return f"{min(login, default='session_authorization')} is the role that logged in, and not the caller"
    return None


def untried(vocabulary: Vocabulary) -> Iterator[str]:
    """Yield what *vocabulary* asks for, and no world varies."""
    asked = _called(vocabulary, _SESSION) | (vocabulary.keywords & _SESSION_KEYWORDS)
    yield from sorted(asked)
    yield from (f"the setting {name}" for name in sorted(vocabulary.other_settings))
    if not vocabulary.is_readable:
        yield "SQL text that it computes"
    if (_called(vocabulary, _NOW) or vocabulary.keywords & _NOW_KEYWORDS) and (
        _called(vocabulary, _PARTS_OF_TIME) or any(one.kind == "timestamp" for one in vocabulary.loose)
    ):
        yield "the time"


def _called(vocabulary: Vocabulary, names: frozenset[str]) -> set[str]:
    return {f"{name[-1]}()" for name in vocabulary.functions if name[-1] in names and name[:-1] in _POSTGRES}
