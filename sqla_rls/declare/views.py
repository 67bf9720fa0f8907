"""Views that row security holds in: ``view("open_todos", Base.metadata, select(…), grant("SELECT", …))``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import Column, MetaData, Table, TextClause
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import _anonymous_label
from sqlalchemy.sql.selectable import Select, SelectBase

from sqla_rls.ddl.views import query_text
from sqla_rls.declare.base import TableDeclarations, declare_on, keep_on, kept_on
from sqla_rls.declare.copies import copies
from sqla_rls.declare.grants import grant
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import MAX_NAME_BYTES, TableKey, View

_CHECK_OPTIONS = (None, "local", "cascaded")


class DeclaredView(NamedTuple):
    """What one call of ``view()`` says; *source* is the view that it is a copy of."""

    metadata: MetaData
    table: Table
    query: SelectBase | str
    security_invoker: bool
    security_barrier: bool
    check_option: str | None
    source: Table | None = None

    def value(
        self, key: TableKey, schema_translate_map: Mapping[str | None, str | None] | None = None
    ) -> View:
        """The view as a value, whose key in the Snapshot is *key*."""
        query = self.query
        if isinstance(query, str):
            text = query.strip()
        else:
            text = query_text(query, key.name, schema_translate_map, self._copied)
        return View(
            schema=key.schema,
            name=key.name,
            definition=text,
            security_invoker=self.security_invoker,
            security_barrier=self.security_barrier,
            check_option=self.check_option,
        )

    def grants(self) -> list[grant]:
        """Raises DeclarationError for a view that declares what only tables have."""
        declarations = TableDeclarations.of(self.table)
        if declarations.row_security is not None:
            raise DeclarationError(
                f"view {self.table.fullname!r} takes grants only: the policies of what it reads hold"
            )
        return declarations.of_type(grant)

    @property
    def has_text(self) -> bool:
        """Whether some of the query is SQL text, and may name anything."""
        return isinstance(self.query, str) or any(
            isinstance(element, TextClause) for element in visitors.iterate(self.query)
        )

    @property
    def _copied(self) -> Callable[[Table], Table] | None:
        others = [one.table for one in declared_views([self.metadata])]
        return copies(self.source, self.table, self.metadata, others)

    def reads(self) -> Iterator[Table]:
        """The tables and views in the query, but for those in SQL text."""
        if not isinstance(self.query, str):
            copied = self._copied
            found = (one for one in visitors.iterate(self.query) if isinstance(one, Table))
            yield from map(copied, found) if copied else found

    def is_of(self, tables: Collection[str]) -> bool:
        """Whether it reads any of *tables*, by their keys, or may, which only SQL text says."""
        return self.has_text or any(one.key in tables for one in self.reads())


class _View(Table):
    """Its copies are views of the copied tables."""

    inherit_cache = True
    declared: DeclaredView

    def to_metadata(self, metadata: MetaData, *args: Any, **kw: Any) -> Table:
        """Declare the view in *metadata*, too, over the copies there of the tables that it reads.

        Arguments are those of ``Table.to_metadata()``.  Raises DeclarationError for SQL text, whose tables
        are unknown.
        """
        if self.declared.has_text:
            raise DeclarationError(
                f"view {self.fullname!r} can't be copied: it is SQL text, and would go on reading the tables "
                "that it names. Declare it there by view()"
            )
        copy: Any = super().to_metadata(MetaData(schema=metadata.schema), *args, **kw)
        # SQLAlchemy makes a plain Table, which could be copied no further.
        copy.__class__ = _View
        source = self if self.declared.source is None else self.declared.source
        _keep(self.declared._replace(metadata=metadata, table=copy, source=source))
        return cast("Table", copy)


def _keep(declared: DeclaredView) -> None:
    table: Any = declared.table
    found = declared_views([declared.metadata])
    if table.key in declared.metadata.tables or any(other.table.key == table.key for other in found):
        raise DeclarationError(f"view {table.fullname!r} is declared twice, or a table has its name")
    table.declared = declared
    keep_on(declared.metadata, declared)


def view(
    name: str,
    metadata: MetaData,
    query: SelectBase | str,
    *grants: grant,
    schema: str | None = None,
    security_invoker: bool = True,
    security_barrier: bool = False,
    check_option: str | None = None,
) -> Table:
    """A view, as a Table that can be queried and mapped, for those in *grants* and for nobody else.

    *query* is a ``select()`` whose columns all have names, ``text(…).columns(…)``, or SQL text, whose
    columns the Table doesn't know.  ``*`` in SQL text is read when the view is made: name the columns.
    Declare a view after what it reads.  With *security_invoker* whoever reads the view reads its tables as
    themselves, with their own privileges and policies; without, it is read as its owner, past the row
    security of its owner's tables.  *check_option* is ``"local"`` or ``"cascaded"``.
    Emitted: ``CREATE VIEW … WITH (security_invoker=true, …) AS …``, ``GRANT`` and ``REVOKE``.
    Source: https://www.postgresql.org/docs/current/sql-createview.html
    """
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise DeclarationError(
            f"view {name!r}: a name has 1 to {MAX_NAME_BYTES} bytes; Postgres would cut it"
        )
    if check_option not in _CHECK_OPTIONS:
        raise DeclarationError(f"view {name!r}: check_option is 'local' or 'cascaded', not {check_option!r}")
    if isinstance(query, Select) and any(
        one.get("entity") is one["expr"] for one in query.column_descriptions
    ):
        # Spelled out, since of a whole entity only what is loaded at once would be there.
        query = query.with_only_columns(*query.selected_columns, maintain_column_froms=True)
    columns = [] if isinstance(query, str) else list(query.subquery().c)
    if any(isinstance(one.name, _anonymous_label) or getattr(one, "is_literal", False) for one in columns):
        raise DeclarationError(f"view {name!r}: give each column a name of its own, by label()")
    named = {str(one): None for found in grants if isinstance(found, grant) for one in found.columns or ()}
    table = _View(
        name,
        # Not in the models' own, where create_all() and Alembic would take it for a table.
        MetaData(schema=metadata.schema),
        *(Column(one.name, one.type, key=one.key, primary_key=one.primary_key) for one in columns),
        *(Column(one) for one in named if isinstance(query, str)),
        schema=schema,
    )
    declare_on(table, *grants)
    _keep(DeclaredView(metadata, table, query, security_invoker, security_barrier, check_option))
    return table


def declared_views(metadatas: Iterable[MetaData]) -> list[DeclaredView]:
    """In the order in which they can be made."""
    return kept_on(metadatas, DeclaredView)
