"""Which expressions mean the same on rows of no table as in a policy."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ARRAY, Connection, RowMapping, Text, bindparam, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.asking import function_asks_for_role
from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.in_place.splice import Expression, parsed
from sqla_rls.analyze.vocabulary import Vocabulary, read_expression, read_function
from sqla_rls.analyze.vocabulary.outside import asks_for_catalog, is_catalog_type, untried, varies, varying
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.implied import Implied
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.catalog.query import undone

_CATALOG: Final = "pg_catalog"
_SUBJECT: Final = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#: Whether the functions of schema auth believe claims that no key signs.
_BELIEVES: Final = {
    "user_id": "auth.user_id() = :subject",
    "uid": "CAST(auth.uid() AS text) = :subject",
    "session": "auth.session() ->> 'sub' = :subject",
    "jwt": "auth.jwt() ->> 'sub' = :subject",
    "organization": "auth.organization() ->> 'id' = :subject",
    "organization_id": "CAST(auth.organization_id() AS text) = :subject",
}
_ASKS_FOR_CATALOG: Final = "may ask for facts of the catalog, which a migration may change"
_NAMES_CATALOG: Final = "has objects of the catalog, which a migration may change"
#: Functions of Postgres that aren't volatile and read tables.
_READERS: Final = frozenset({"table_to_xml", "schema_to_xml", "database_to_xml", "cursor_to_xml"})


@dataclass(slots=True)
class Functions:
    """The functions of a database, as far as expressions call them."""

    connection: Connection
    #: What an expression calls without naming it.
    implied: Implied
    _known: dict[str, list[RowMapping]] = field(default_factory=dict)
    _reasons: dict[str, str | None] = field(default_factory=dict)
    _believing: dict[str, bool] = field(default_factory=dict)
    _calls: dict[str, frozenset[tuple[str, ...]]] = field(default_factory=dict)

    def require_decidable(
        self, expressions: Iterable[Expression], *, but: Collection[tuple[str, ...]] = ()
    ) -> None:
        """Raise Undecidable if a function that *expressions* call may read a table.

        Args:
            expressions: the expressions.
            but: the functions whose queries stand in place of their calls.
        """
        expressions = self._with_checks(expressions)
        names = sorted({name for one in expressions for name in self._named(one.vocabulary)})
        self._look_up({name[-1] for name in names})
        if any(asks_for_catalog(one.vocabulary, self.implied.catalog_types) for one in expressions):
            raise Undecidable(f"a policy {_ASKS_FOR_CATALOG}")
        self._require_known_operators({pair for one in expressions for pair in one.operators})
        for name in names:
            if name not in but:
                self._require(name)
        for one in expressions:
            if (reason := varying(one.vocabulary)) is not None:
                raise Undecidable(reason)
        for name in names:
            if name[:-1] == ("auth",):
                self._require_claims(name[-1])

    def require_no_catalog_columns(
        self, relations: Iterable[Relation], expressions: Iterable[Expression]
    ) -> None:
        """Raise Undecidable if *expressions* may read a column of *relations* with objects of the catalog."""
        names = {name for one in expressions for name in one.vocabulary.names}
        for relation in relations:
            type_ = self.implied.types.get((relation.schema, relation.relname))
            columns = () if type_ is None else type_.catalog_columns
            # The name of the relation may be its row.
            if columns and not names.isdisjoint((relation.relname, *columns)):
                raise Undecidable(f"column {columns[0]} of {relation.name} {_NAMES_CATALOG}")

    def signatures(self, expressions: Iterable[Expression]) -> list[str]:
        """Return the signatures of the functions outside ``pg_catalog`` that *expressions* reach.

        They are those that the expressions call, those that the bodies of these may call, and so on.
        """
        return sorted(self._reached(expressions))

    def types(self, expressions: Iterable[Expression]) -> frozenset[tuple[str, str]]:
        """Return the domains, and types of these, to which *expressions* and their functions may cast."""
        expressions = list(expressions)
        found = {name for one in expressions for name in self.implied.types_in(one.vocabulary)}
        for row in self._reached(expressions).values():
            vocabulary = read_function(row["language"], row["body"])
            found |= self.implied.types_in(vocabulary, _types(row))
        return frozenset(found)

    def executed(self, expressions: Iterable[Expression]) -> list[str]:
        """Return the signatures of the functions on which a role needs EXECUTE for *expressions*."""
        return sorted(self._reached(expressions, as_caller=True))

    def ask_for_role(self, expressions: Iterable[Expression]) -> bool:
        """Return whether *expressions*, or the functions that they reach, may ask for the role."""
        expressions = self._with_checks(expressions)
        return any(one.depends_on_role for one in expressions) or any(
            function_asks_for_role(row["language"], row["body"])
            for row in self._reached(expressions).values()
            if not row["is_of_extension"]
        )

    def untried(self, expressions: Iterable[Expression]) -> list[str]:
        """Return what *expressions*, and the functions that they reach, ask for and no world varies."""
        expressions = self._with_checks(expressions)
        vocabularies = [one.vocabulary for one in expressions]
        for row in self._reached(expressions).values():
            if not row["is_of_extension"]:
                vocabularies += self._vocabularies(row)
        return sorted({fact for one in vocabularies for fact in untried(one)})

    def may_be_frozen(self, expressions: Iterable[Expression]) -> bool:
        """Return whether a plan may keep what a function returned to another caller."""
        return any(
            row["is_immutable"] and not row["is_of_extension"] for row in self._reached(expressions).values()
        )

    def _reached(
        self, expressions: Iterable[Expression], *, as_caller: bool = False
    ) -> Mapping[str, RowMapping]:
        """Return the functions outside ``pg_catalog`` that *expressions* may call, by their signatures.

        Args:
            expressions: the expressions.
            as_caller: leave out those that are called with the rights of the owner of another.
        """
        # Postgres prints the schema of each function of an expression; a body may leave it out.
        waiting = {name for one in expressions for name in self._named(one.vocabulary) if len(name) > 1}
        found: dict[str, RowMapping] = {}
        while waiting:
            self._look_up({name[-1] for name in waiting})
            rows = {
                row["signature"]: row
                for name in waiting
                for row in self._known[name[-1]]
                if row["schema"] != _CATALOG and (len(name) == 1 or row["schema"] == name[-2])
            }
            new = [row for signature, row in rows.items() if signature not in found]
            found |= rows
            waiting = {
                name
                for row in new
                if not (as_caller and row["is_definer"]) and not row["is_of_extension"]
                for name in self._called(row)
            }
        return found

    def _called(self, row: RowMapping) -> frozenset[tuple[str, ...]]:
        """Return the names of the functions that the body of a function calls."""
        signature = row["signature"]
        if signature not in self._calls:
            vocabulary = read_function(row["language"], row["body"])
            self._calls[signature] = frozenset(self._named(vocabulary, _types(row)))
        return self._calls[signature]

    def _named(self, vocabulary: Vocabulary, types: Collection[tuple[str, str]] = ()) -> Set[tuple[str, ...]]:
        """Return the names of the functions that are called, with those without a name in the text."""
        return vocabulary.functions | self.implied.calls(vocabulary, types)

    def _with_checks(self, expressions: Iterable[Expression]) -> list[Expression]:
        """Return *expressions* with the checks of the domains to which they cast."""
        expressions = list(expressions)
        checks = {check for one in expressions for check in self.implied.checks(one.vocabulary)}
        return [*expressions, *map(parsed, sorted(checks))]

    def _vocabularies(self, row: RowMapping) -> list[Vocabulary]:
        """Return the vocabulary of a body, and those of the checks of the domains to which it casts."""
        vocabulary = read_function(row["language"], row["body"])
        checks = self.implied.checks(vocabulary, _types(row))
        return [vocabulary, *map(read_expression, checks)]

    def _require_claims(self, name: str) -> None:
        if name not in self._believing:
            self._believing[name] = self._believes(name)
        if not self._believing[name]:
            raise Undecidable(f"function auth.{name}() believes only signed claims")

    def _believes(self, name: str) -> bool:
        if name not in _BELIEVES:
            return True
        claims = {"sub": _SUBJECT, "o": {"id": _SUBJECT}}
        try:
            with undone(self.connection):
                self.connection.execute(
                    text("SELECT pg_catalog.set_config('request.jwt.claims', :claims, true)"),
                    {"claims": json.dumps(claims)},
                )
                return bool(self.connection.scalar(text(f"SELECT {_BELIEVES[name]}"), {"subject": _SUBJECT}))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return False

    def _require_known_operators(self, operators: set[tuple[str, str]]) -> None:
        """An operator of an extension compares values; the function of another may read tables."""
        if not operators:
            return
        statement = query("operators_of_users").bindparams(
            bindparam("schemas", type_=ARRAY(Text())), bindparam("names", type_=ARRAY(Text()))
        )
        pairs = sorted(operators)
        parameters = {"schemas": [schema for schema, _ in pairs], "names": [name for _, name in pairs]}
        for name in self.connection.scalars(statement, parameters):
            raise Undecidable(f"the function of operator {name} may read tables")

    def _require(self, name: tuple[str, ...]) -> None:
        # Postgres prints the schema of each function that isn't its own.
        *qualifier, last = name
        schema = qualifier[0] if qualifier else _CATALOG
        rows = [row for row in self._known[last] if row["schema"] == schema]
        if not rows and schema != _CATALOG:
            raise Undecidable(f"function {'.'.join(name)} doesn't exist yet")
        for row in rows:
            reason = self._reason(row)
            if reason is not None:
                raise Undecidable(reason)

    def _reason(self, row: RowMapping) -> str | None:
        signature = row["signature"]
        if signature not in self._reasons:
            # A function that calls itself says nothing about itself.
            self._reasons[signature] = None
            self._reasons[signature] = self._found(row)
        return self._reasons[signature]

    def _found(self, row: RowMapping) -> str | None:
        name = row["signature"]
        if row["schema"] == _CATALOG:
            if row["is_volatile"]:
                return f"function {name} is volatile"
            if varies(row["name"]):
                return f"function {name} has another value each time"
            return f"function {name} reads tables" if row["name"] in _READERS else None
        if row["is_of_extension"]:
            return (
                None if row["is_immutable"] or row["schema"] == "auth" else f"function {name} may read tables"
            )
        vocabulary, *checks = vocabularies = self._vocabularies(row)
        if vocabulary.relations:
            read = ", ".join(sorted(".".join(one) for one in vocabulary.relations))
            return f"function {name} reads {read}"
        if not vocabulary.is_complete:
            return f"function {name} may read tables: its body can't be parsed"
        types = self.implied.catalog_types
        if any(asks_for_catalog(one, types) for one in vocabularies) or any(
            is_catalog_type(one, types) for one in row["types"]
        ):
            return f"function {name} {_ASKS_FOR_CATALOG}"
        called = {one[-1] for one in self._called(row)} | {
            one[-1] for each in checks for one in each.functions
        }
        self._look_up(called)
        for each in sorted(called):
            for other in self._known[each]:
                reason = self._reason(other)
                if reason is not None:
                    return f"{reason}, called by {name}"
        reasons = (reason for one in vocabularies if (reason := varying(one)) is not None)
        reason = next(reasons, None)
        return None if reason is None else f"{reason}, asked by {name}"

    def _look_up(self, names: Iterable[str]) -> None:
        missing = sorted(set(names) - self._known.keys())
        if not missing:
            return
        self._known.update({name: [] for name in missing})
        statement = query("functions_by_name").bindparams(bindparam("names", type_=ARRAY(Text())))
        for row in self.connection.execute(statement, {"names": missing}).mappings():
            self._known[row["name"]].append(row)


def _types(row: RowMapping) -> list[tuple[str, str]]:
    """Return the types of the arguments and of the result of a function."""
    return [(schema, name) for schema, name in row["types"]]
