"""Views with row security: ``view("open_todos", Base.metadata, select(…), grant("SELECT", …))``."""

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
    """The arguments of one call of ``view()``; *source* is the original of a copied view."""

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
        """Return the view as a value, whose key in the Snapshot is *key*."""
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
        """Return the grants on the view.

        Raises:
            DeclarationError: the view has a declaration for tables.
        """
        declarations = TableDeclarations.of(self.table)
        if declarations.row_security is not None:
            raise DeclarationError(
                f"view {self.table.fullname!r} can't be declared: a view takes grants only. Declare policies "
                "on the tables that it reads"
            )
        return declarations.of_type(grant)

    @property
    def has_text(self) -> bool:
        """Whether the query has SQL text, which may name any table."""
        return isinstance(self.query, str) or any(
            isinstance(element, TextClause) for element in visitors.iterate(self.query)
        )

    @property
    def _copied(self) -> Callable[[Table], Table] | None:
        others = [one.table for one in declared_views([self.metadata])]
        return copies(self.source, self.table, self.metadata, others)

    def reads(self) -> Iterator[Table]:
        """Return the tables and views in the query, except those in SQL text."""
        if not isinstance(self.query, str):
            copied = self._copied
            found = (one for one in visitors.iterate(self.query) if isinstance(one, Table))
            yield from map(copied, found) if copied else found

    def is_of(self, tables: Collection[str]) -> bool:
        """Return whether the view reads any of *tables*, or may read them, as SQL text does."""
        return self.has_text or any(one.key in tables for one in self.reads())


class _View(Table):
    """A Table for a view; its copies are views of the copied tables."""

    inherit_cache = True
    declared: DeclaredView

    def to_metadata(self, metadata: MetaData, *args: Any, **kw: Any) -> Table:
        """Declare a copy of the view in *metadata*, which reads the copies of its tables.

        The arguments are those of ``Table.to_metadata()``.

        Raises:
            DeclarationError: the query is SQL text, whose tables are unknown.
        """
        if self.declared.has_text:
            raise DeclarationError(
                f"view {self.fullname!r} can't be copied: it is SQL text, and the copy would read the "
                "original tables. Declare it there with view()"
            )
        copy: Any = super().to_metadata(MetaData(schema=metadata.schema), *args, **kw)
        # SQLAlchemy makes a plain Table, whose copies would be tables.
        copy.__class__ = _View
        source = self if self.declared.source is None else self.declared.source
        _keep(self.declared._replace(metadata=metadata, table=copy, source=source))
        return cast("Table", copy)


def _keep(declared: DeclaredView) -> None:
    table: Any = declared.table
    found = declared_views([declared.metadata])
    if table.key in declared.metadata.tables or any(other.table.key == table.key for other in found):
        raise DeclarationError(
            f"view {table.fullname!r} is declared twice, or a table has its name. Give it another name"
        )
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
    """Declare a view, and return a Table that you can query and map.

    Only the granted roles can read the view.  Declare a view after the tables and views that it reads.
    See https://www.postgresql.org/docs/current/sql-createview.html.

    Args:
        name: the name.
        metadata: the MetaData of the models.
        query: a ``select()`` whose columns all have names, ``text(…).columns(…)``, or SQL text.  The Table of
            SQL text has no columns.  Name the columns in SQL text: Postgres expands ``*`` once, when it
            creates the view.
        *grants: the privileges on the view.
        schema: the schema.
        security_invoker: whether the tables are read with the privileges and policies of the role that reads
            the view.  False reads them as the owner of the view, and bypasses row security of its tables.
        security_barrier: as in ``CREATE VIEW``.
        check_option: ``"local"`` or ``"cascaded"``.

    Raises:
        DeclarationError: an argument is wrong, or the name is taken.

    Emits:
        ``CREATE VIEW … WITH (security_invoker=true, …) AS …``, ``GRANT`` and ``REVOKE``
    """
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise DeclarationError(
            f"view {name!r} can't be declared: Postgres would cut its name, or it is empty. "
            f"Give a name of 1 to {MAX_NAME_BYTES} bytes"
        )
    if check_option not in _CHECK_OPTIONS:
        raise DeclarationError(
            f"view {name!r} can't be declared: there is no check_option {check_option!r}. "
            "Give 'local' or 'cascaded'"
        )
    if isinstance(query, Select) and any(
        one.get("entity") is one["expr"] for one in query.column_descriptions
    ):
        # Column by column, since SQLAlchemy leaves out deferred columns of a whole entity.
        query = query.with_only_columns(*query.selected_columns, maintain_column_froms=True)
    columns = [] if isinstance(query, str) else list(query.subquery().c)
    if any(isinstance(one.name, _anonymous_label) or getattr(one, "is_literal", False) for one in columns):
        raise DeclarationError(
            f"view {name!r} can't be declared: a column of its query has no name. "
            "Give each column a name of its own, with label()"
        )
    named = {str(one): None for found in grants if isinstance(found, grant) for one in found.columns or ()}
    table = _View(
        name,
        # In the MetaData of the models, create_all() and Alembic would treat the view as a table.
        MetaData(schema=metadata.schema),
        *(Column(one.name, one.type, key=one.key, primary_key=one.primary_key) for one in columns),
        *(Column(one) for one in named if isinstance(query, str)),
        schema=schema,
    )
    declare_on(table, *grants)
    _keep(DeclaredView(metadata, table, query, security_invoker, security_barrier, check_option))
    return table


def declared_views(metadatas: Iterable[MetaData]) -> list[DeclaredView]:
    """Return the views of *metadatas*, in an order in which they can be created."""
    return kept_on(metadatas, DeclaredView)
