"""The facts beside rows, callers and definitions that SQL may ask for: chance, the session, the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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
_CATALOG_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})
#: The types whose values are objects of the catalog by their names, or privileges on these.
CATALOG_TYPES: Final = frozenset(
    {
        *("regclass", "regcollation", "regconfig", "regdatabase", "regdictionary", "regnamespace", "regoper"),
        *("regoperator", "regproc", "regprocedure", "regrole", "regtype", "aclitem"),
    }
)
#: The functions that answer from the catalog, beside those whose names begin with pg_.
_CATALOG_FUNCTIONS: Final = frozenset(
    {
        *("col_description", "obj_description", "shobj_description"),
        *(
            f"has_{one}_privilege"
            for one in (
                *("any_column", "column", "database", "foreign_data_wrapper", "function", "language"),
                *("largeobject", "parameter", "schema", "sequence", "server", "table", "tablespace", "type"),
            )
        ),
        *("row_security_active", "format_type", "oidvectortypes", "to_regtypemod"),
        *(
            name
            for one in CATALOG_TYPES
            for name in (one, f"to_{one}", *(f"{one}{end}" for end in ("in", "out", "recv", "send")))
        ),
        *("aclcontains", "acldefault", "aclexplode", "aclinsert", "aclitemeq", "aclremove", "makeaclitem"),
        *("hash_aclitem", "hash_aclitem_extended"),
        # The configurations of text search, also those of the default.
        *("to_tsvector", "json_to_tsvector", "jsonb_to_tsvector", "to_tsquery", "plainto_tsquery"),
        *("phraseto_tsquery", "websearch_to_tsquery", "ts_debug", "ts_headline", "ts_lexize", "ts_parse"),
        "ts_token_type",
    }
)
#: Those with pg_ that ask for their arguments, the session or a lock; pg_has_role() has a check of its own.
_NOT_OF_CATALOG: Final = frozenset(
    {
        *("pg_has_role", "pg_typeof", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_column_size"),
        *("pg_column_compression", "pg_collation_for", "pg_input_is_valid", "pg_input_error_info"),
        *("pg_size_pretty", "pg_size_bytes", "pg_notify", "pg_encoding_to_char", "pg_char_to_encoding"),
        *(name for name in _VARYING | _SESSION if name.startswith("pg_")),
    }
)
_LOCKS: Final = ("pg_advisory_", "pg_try_advisory_")


def asks_for_catalog(vocabulary: Vocabulary, types: Collection[tuple[str, str]] = ()) -> bool:
    """Return whether *vocabulary* may ask for privileges, comments, or other facts of the catalog.

    A name without a schema counts as Postgres's own.  SQL that can't be read may ask for anything.

    Args:
        vocabulary: that of an expression, a query or a body.
        types: the types of users, with their schemas, whose values name objects of the catalog.
    """
    return (
        not (vocabulary.is_parsed and vocabulary.is_readable)
        or any(map(_is_catalog_function, vocabulary.functions))
        or any(map(_is_of_catalog, vocabulary.relations))
        or any(is_catalog_type(one, types) for one in vocabulary.types)
    )


def is_catalog_type(name: Sequence[str], types: Collection[tuple[str, str]]) -> bool:
    """Return whether the values of that type name objects of the catalog, or privileges on these.

    Args:
        name: its parts.
        types: the types of users that do.
    """
    last = name[-1].lstrip("_")
    return (last in CATALOG_TYPES and _is_postgres(name)) or may_mean(name, types)


def may_mean(name: Sequence[str], objects: Collection[tuple[str, str]]) -> bool:
    """Return whether *name*, in parts, may be that of one of *objects*, with their schemas."""
    if len(name) > 1:
        return (name[-2], name[-1]) in objects
    return any(each == name[-1] for _, each in objects)


def _is_postgres(name: Sequence[str]) -> bool:
    return len(name) == 1 or name[-2] == "pg_catalog"


def _is_catalog_function(name: Sequence[str]) -> bool:
    if len(name) > 1 and name[-2] == "information_schema":
        return True
    last = name[-1]
    if not _is_postgres(name) or last in _NOT_OF_CATALOG or last.startswith(_LOCKS):
        return False
    return last.startswith("pg_") or last in _CATALOG_FUNCTIONS


def _is_of_catalog(relation: Sequence[str]) -> bool:
    if len(relation) > 1:
        return relation[-2] in _CATALOG_SCHEMAS
    # All relations of pg_catalog have this prefix.
    return relation[-1].startswith("pg_")


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
