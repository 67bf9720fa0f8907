"""Fills a scratch database from a dump, and leaves out the parts that it can't have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.errors import DuplicateSchema, UndefinedObject

from sqla_rls.analyze.sides.dump import Dump, script
from sqla_rls.analyze.sides.roles import as_sql, attempt, create_roles, set_default
from sqla_rls.analyze.sides.scratch import DATABASE, Scratch
from sqla_rls.analyze.sides.statements import require_parser, split
from sqla_rls.analyze.sides.unsigned import EXTENSION, UNSIGNED

#: The settings of a database that change what a statement means.  The others concern its speed and its log.
_MEANINGS: Final = {
    "search_path",
    "row_security",
    "timezone",
    "datestyle",
    "intervalstyle",
    "transform_null_equals",
}
#: Functions of extensions that Postgres has under other names.
_KNOWN: Final = {"uuid_generate_v4": "pg_catalog.gen_random_uuid()"}

_Connection = psycopg.Connection[Any]


def restore(dump: Dump, scratch: Scratch) -> None:
    """Create the roles and the objects of *dump* in the scratch database."""
    scratch.left_out.extend(dump.left_out)
    if dump.server_version != scratch.server.version:
        scratch.left_out.append(
            f"The database runs on PostgreSQL {dump.server_version}, and the scratch database on "
            f"PostgreSQL {scratch.server.version}."
        )
    with scratch.connect() as connection:
        create_roles(connection, dump.roles, scratch.left_out)
        _set_up_database(connection, dump.database)
        missing = _missing_extensions(connection, dump)
        for extension in missing:
            if extension["name"] == EXTENSION:
                _create_auth(connection, dump)
                scratch.left_out.append(UNSIGNED)
            else:
                scratch.left_out.append(f"The scratch server lacks the extension {extension['name']}.")
                _create_stand_ins(connection, extension, scratch)
        if missing or not _runs(connection, dump.schema):
            _run_each(connection, dump.schema, {one["name"] for one in missing}, scratch)
        _find_stand_ins(connection, scratch)


def _set_up_database(connection: _Connection, database: Mapping[str, Any]) -> None:
    name = sql.Identifier(DATABASE)
    attempt(
        connection,
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(database["owner"])),
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    for one in database["privileges"]:
        grantee = sql.SQL("PUBLIC") if one["role"] is None else sql.Identifier(one["role"])
        grant = sql.SQL("GRANT {} ON DATABASE {} TO {}").format(as_sql(one["privilege"]), name, grantee)
        attempt(connection, grant + sql.SQL(" WITH GRANT OPTION" if one["grantable"] else ""))
    for setting, value in database["settings"].items():
        if setting.lower() in _MEANINGS:
            set_default(connection, sql.SQL("ALTER DATABASE {} SET ").format(name), setting, value)


def _missing_extensions(connection: _Connection, dump: Dump) -> list[Mapping[str, Any]]:
    found = connection.execute("SELECT name FROM pg_catalog.pg_available_extensions")
    available = {row[0] for row in found}
    return [one for one in dump.extensions if one["name"] not in available]


def _create_auth(connection: _Connection, dump: Dump) -> None:
    """Create schema ``auth`` in place of the extension pg_session_jwt."""
    from sqlalchemy.dialects import postgresql

    from sqla_rls.ddl.auth_functions import CreateAuthFunctions

    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    connection.execute(str(CreateAuthFunctions().compile(dialect=dialect)).encode())
    for role in dump.database["auth_usage"]:
        grantee = sql.SQL("PUBLIC") if role == "PUBLIC" else sql.Identifier(role)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA auth TO {}").format(grantee))


def _create_stand_ins(connection: _Connection, extension: Mapping[str, Any], scratch: Scratch) -> None:
    """Create the functions that other objects call, so that these objects can be created."""
    for function in extension["functions"]:
        if function["name"] in _KNOWN:
            body = sql.SQL("LANGUAGE sql AS {}").format(sql.Literal(f"SELECT {_KNOWN[function['name']]}"))
        else:
            reason = f"function {function['name']} of the extension {extension['name']} is missing here"
            source = sql.SQL("BEGIN RAISE feature_not_supported USING MESSAGE = {}; END").format(
                sql.Literal(reason)
            )
            body = sql.SQL("LANGUAGE plpgsql AS {}").format(sql.Literal(source.as_string(connection)))
        schema = sql.Identifier(function["schema"])
        signature = sql.SQL("{}.{}({}) RETURNS {} {} ").format(
            schema,
            sql.Identifier(function["name"]),
            as_sql(function["arguments"]),
            as_sql(function["returns"]),
            as_sql(function["volatility"]),
        )
        try:
            with connection.transaction():
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
                connection.execute(sql.SQL("CREATE FUNCTION ") + signature + body)
                comment = sql.SQL("COMMENT ON FUNCTION {}.{}({}) IS {}").format(
                    schema,
                    sql.Identifier(function["name"]),
                    as_sql(function["arguments"]),
                    sql.Literal("" if function["name"] in _KNOWN else _STAND_IN),
                )
                connection.execute(comment)
        except psycopg.Error:
            # A type of the extension: what calls the function is left out, with a sentence.
            continue


_STAND_IN: Final = "stands in for a function of a missing extension"


def _find_stand_ins(connection: _Connection, scratch: Scratch) -> None:
    """Note the tables whose policies, and the views whose queries, call a missing function."""
    for function, relation in connection.execute(script("stand_ins").encode(), [_STAND_IN]):
        sentence = f"{relation} calls {function}, a function of a missing extension."
        scratch.lacks(relation, sentence)
        scratch.left_out.append(sentence)


def _runs(connection: _Connection, script: str) -> bool:
    """Whether *script* runs as a whole; otherwise nothing of it is left."""
    try:
        connection.execute(script.encode())
    except psycopg.Error:
        connection.execute("RESET ALL")
        return False
    return True


def _run_each(connection: _Connection, script: str, missing: set[str], scratch: Scratch) -> None:
    for statement in split(script):
        try:
            connection.execute(statement.encode())
        except psycopg.Error as error:
            for sentence in _Failure(connection, statement, error, missing).handled(scratch):
                if sentence not in scratch.left_out:
                    scratch.left_out.append(sentence)


#: They don't change who can do what: settings of the restoring session, comments, and physical properties.
_HARMLESS: Final = {
    "VariableSetStmt",
    "CommentStmt",
    "AT_SetOptions",
    "AT_SetStatistics",
    "AT_SetStorage",
    "AT_SetCompression",
    "AT_SetAccessMethod",
    "AT_ClusterOn",
}


class _Failure:
    """A statement that fails in the scratch database."""

    def __init__(
        self, connection: _Connection, statement: str, error: psycopg.Error, missing: set[str]
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._error = error
        self._missing = missing
        pglast = require_parser()
        try:
            self._node: Any = pglast.parse_sql(statement)[0].stmt
        except pglast.parser.ParseError:
            self._node = None

    def handled(self, scratch: Scratch) -> Iterator[str]:
        """Run the statement in another way or do without it; yield sentences about that."""
        kind = type(self._node).__name__
        if kind in _HARMLESS or self._is_harmless(kind):
            return
        if isinstance(self._error, UndefinedObject) and self._node is not None:
            types = self._with_text()
            if types is not None:
                for name in types:
                    yield f"The type {name} is missing here: its columns are text."
                return
        for relation in self._relations():
            scratch.lacks(relation, self._statement)
        line = self._statement.split("\n", 1)[0]
        reason = (self._error.diag.message_primary or str(self._error)).strip()
        yield f"This statement fails in the scratch database: {line[:100]} … ({reason})."

    def _is_harmless(self, kind: str) -> bool:
        if kind == "CreateExtensionStmt":
            return self._node.extname in self._missing
        if kind == "CreateSchemaStmt":
            # The schema of a stand-in.
            return isinstance(self._error, DuplicateSchema)
        changes = self._node.cmds if kind == "AlterTableStmt" else ()
        return bool(changes) and all(one.subtype.name in _HARMLESS for one in changes)

    def _with_text(self) -> set[str] | None:
        """Run the statement with the type text in place of missing types; return these, or None."""
        from pglast.stream import RawStream

        replaced: set[str] = set()
        for type_name in _type_names(self._node):
            names = [one.sval for one in type_name.names]
            name = ".".join(names)
            if self._connection.execute("SELECT to_regtype(%s)", [_quoted(names)]).fetchone() == (None,):
                replaced.add(name)
                type_name.names = _text_type()
                type_name.typmods = None
        if not replaced:
            return None
        try:
            self._connection.execute(RawStream()(self._node).encode())
        except psycopg.Error as error:
            self._error = error
            return None
        return replaced

    def _relations(self) -> Iterator[str]:
        """Yield the tables and views that the statement concerns, as Postgres quotes their names."""
        node = self._node
        if type(node).__name__ == "IndexStmt" and not (node.unique or node.primary):
            return
        for field in ("relation", "table", "view"):
            yield from self._named(getattr(node, field, None))
        if type(node).__name__ == "GrantStmt":
            for one in node.objects or ():
                yield from self._named(one)

    def _named(self, found: Any) -> Iterator[str]:
        if type(found).__name__ == "RangeVar":
            statement = "SELECT format('%%I.%%I', %s::text, %s::text)"
            row = self._connection.execute(statement, [found.schemaname or "public", found.relname])
            yield from (one[0] for one in row)


def _quoted(names: Sequence[str]) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _text_type() -> tuple[Any, ...]:
    from pglast import ast

    return (ast.String("pg_catalog"), ast.String("text"))


def _type_names(node: Any) -> list[Any]:
    from pglast import ast
    from pglast.visitors import Visitor

    found: list[Any] = []

    class TypeNames(Visitor):
        def visit_TypeName(self, ancestors: Any, node: ast.TypeName) -> None:
            found.append(node)

    TypeNames()(node)
    return found
