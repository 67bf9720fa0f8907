"""Predicates, queries and bodies of functions become vocabularies."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, Final

from sqla_rls.analyze.vocabulary.expressions import Reader
from sqla_rls.analyze.vocabulary.functions import RUN_TEXT
from sqla_rls.analyze.vocabulary.terms import Vocabulary
from sqla_rls.analyze.vocabulary.trees import trees
from sqla_rls.exc import AnalysisError

# A body says RETURN in the way that its result has it, which the body alone doesn't tell.
_RESULTS: Final = ("boolean", "SETOF record", "trigger", "void")
_DYNAMIC: Final = ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors")
#: Words of PostgreSQL's lexer, and the commands that they begin.
_COMMANDS: Final = {
    "INSERT": frozenset({"INSERT"}),
    "UPDATE": frozenset({"UPDATE"}),
    "DELETE_P": frozenset({"DELETE"}),
    "MERGE": frozenset({"INSERT", "UPDATE", "DELETE"}),
}
# RawParseMode: assignments to a name, to two parts and to three.
_ASSIGNMENTS: Final = (3, 4, 5)


@cache
def read_expression(sql: str) -> Vocabulary:
    """Return the vocabulary of a predicate, as ``pg_get_expr()`` prints it.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    reader = Reader()
    for statement in _parsed(reader, f"SELECT {sql}"):
        reader.condition(statement)
    return reader.words.vocabulary()


def read_query(sql: str) -> Vocabulary:
    """Return the vocabulary of the query of a view.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    reader = Reader()
    for statement in _parsed(reader, sql):
        for value in reader.query(statement, names_columns=True):
            reader.comparisons.finish(value)
    return reader.words.vocabulary()


def read_function(language: str, body: str) -> Vocabulary:
    """Return the vocabulary of the body of a function.

    Args:
        language: "sql" or "plpgsql"; a function of another language can't be read.
        body: the text of the body, or the SQL that ``pg_get_function_sqlbody()`` prints.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    reader = Reader()
    if language == "sql":
        for statement in _sql_body(reader, body):
            reader.condition(statement)
    elif language == "plpgsql":
        _read_plpgsql(reader, body)
    else:
        reader.words.leave_unread()
    return reader.words.vocabulary()


def has_words(body: str, words: Collection[str]) -> bool:
    """Return whether *body* has one of the key words *words*, in capitals; a body that can't be read does.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    pglast = _pglast()
    try:
        return any(body[one.start : one.end + 1].upper() in words for one in pglast.parser.scan(body))
    except pglast.parser.ParseError:
        return True


def _pglast() -> Any:
    try:
        import pglast
    except ImportError:
        raise AnalysisError(
            "the predicates can't be analyzed: pglast isn't installed. Run: pip install 'sqla-rls[analyze]'"
        ) from None
    return pglast


def _parsed(reader: Reader, sql: str) -> list[Any]:
    pglast = _pglast()
    try:
        return list(trees(sql))
    except pglast.parser.ParseError:
        # The server may know syntax that the parser doesn't.
        _scan(reader, sql)
        return []


def _sql_body(reader: Reader, body: str) -> list[Any]:
    pglast = _pglast()
    try:
        return [raw.stmt for raw in pglast.parse_sql(body)]
    except pglast.parser.ParseError:
        return _parsed(reader, f"CREATE FUNCTION f() RETURNS void LANGUAGE sql {body}")


def _read_plpgsql(reader: Reader, body: str) -> None:
    pglast = _pglast()
    tag = "$body$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    for result in _RESULTS:
        statement = f"CREATE FUNCTION f() RETURNS {result} LANGUAGE plpgsql AS {tag}{body}{tag}"
        try:
            tree = pglast.parse_plpgsql(statement)
        except pglast.parser.ParseError:
            continue
        _walk(reader, tree)
        # The parser doesn't say the types of variables that aren't its own.
        reader.words.types |= {(name,) for name in _identifiers(body)}
        return
    _scan(reader, body)


def _scan(reader: Reader, sql: str) -> None:
    """Read the words of SQL that can't be parsed, such as a body that assigns an argument."""
    from pglast.parser import ParseError, scan

    reader.words.leave_unparsed()
    try:
        tokens = scan(sql)
    except ParseError:
        reader.words.leave_unread()
        return
    reader.words.types |= {(name,) for name in _identifiers(sql)}
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        reader.words.writes |= _COMMANDS.get(token.name, frozenset())
        is_block = token.name == "DO" and following is not None and following.name in ("SCONST", "LANGUAGE")
        word = sql[token.start : token.end + 1].strip('"').lower()
        if is_block or token.name == "EXECUTE" or (token.name == "IDENT" and word.startswith(RUN_TEXT)):
            reader.words.leave_unread()


def _identifiers(sql: str) -> Iterator[str]:
    """Yield the words of *sql* that may be names, as Postgres folds them."""
    from pglast.parser import scan

    tokens = list(scan(sql))
    for place, token in enumerate(tokens):
        word = sql[token.start : token.end + 1]
        if token.name == "UIDENT":
            # The character of its escapes may follow.
            has_escape = [one.name for one in tokens[place + 1 : place + 3]] == ["UESCAPE", "SCONST"]
            end = tokens[place + 2].end if has_escape else token.end
            yield trees(f"SELECT {sql[token.start : end + 1]}")[0].targetList[0].val.fields[0].sval
        elif token.name == "IDENT" and word.startswith('"'):
            yield word[1:-1].replace('""', '"')
        elif token.name == "IDENT" or token.kind not in ("NO_KEYWORD", "RESERVED_KEYWORD"):
            yield word.lower()


def _walk(reader: Reader, tree: Any) -> None:
    if isinstance(tree, list):
        for each in tree:
            _walk(reader, each)
        return
    if not isinstance(tree, dict):
        return
    for name, value in tree.items():
        if name in _DYNAMIC or name == "dynquery":
            reader.words.leave_unread()
        if name == "PLpgSQL_type" and "%" not in value["typname"]:
            reader.note_type((value["typname"],))
        elif name == "PLpgSQL_expr":
            _read_embedded(reader, value)
        elif name == "PLpgSQL_stmt_case" and "t_expr" in value:
            compared = _embedded(reader, value["t_expr"]["PLpgSQL_expr"])
            reader.name_values([f"__Case__Variable_{value.get('t_varno')}__"], compared)
            _walk(reader, {key: each for key, each in value.items() if key != "t_expr"})
        elif name == "PLpgSQL_stmt_execsql" and "target" in value:
            fields = value["target"].get("PLpgSQL_row", {}).get("fields", [])
            found = _embedded(reader, value["sqlstmt"]["PLpgSQL_expr"])
            reader.name_values([_last_part(each["name"]) for each in fields], found)
        else:
            _walk(reader, value)


def _read_embedded(reader: Reader, expression: dict[str, Any]) -> None:
    if expression.get("parseMode") not in _ASSIGNMENTS:
        for value in _embedded(reader, expression):
            reader.comparisons.finish(value)
        return
    target, _, source = expression["query"].partition(":=")
    if not source:
        target, _, source = expression["query"].partition("=")
    reader.name_values([_last_part(target)], _embedded(reader, {"query": source, "parseMode": 2}))


def _last_part(name: str) -> str:
    """The variable, or the field of a record."""
    return name.strip().rpartition(".")[2].strip('"')


def _embedded(reader: Reader, expression: dict[str, Any]) -> list[Any]:
    """The values of the columns that an expression, or a statement, of a body returns."""
    query = expression["query"]
    sql = query if expression.get("parseMode", 0) == 0 else f"SELECT {query}"
    return [value for statement in _parsed(reader, sql) for value in reader.query(statement)]
