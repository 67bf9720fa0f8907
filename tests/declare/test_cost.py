"""What many declarations cost, in counts that no machine changes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from sqlalchemy import CHAR, Column, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

from sqla_rls import auth_uid, authenticated, crud_policy, declare_on
from sqla_rls.ddl.compile import expression_text
from sqla_rls.declare import collect, expressions
from sqla_rls.declare.collect import declared
from sqla_rls.declare.expressions import family_of

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]


def _own_rows() -> crud_policy:
    return crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))


def _models(tables: int) -> MetaData:
    metadata = MetaData()
    for number in range(tables):
        columns = Column("id", Integer, primary_key=True), Column("user_id", Text)
        Table(f"table_{number}", metadata, *columns, _own_rows())
    return metadata


def test_garbage_collection_visits_six_objects_of_four_policies_and_their_two_expressions() -> None:
    _own_rows()
    before = len(gc.get_objects())
    kept = [policy for _ in range(100) for policy in _own_rows().policies]
    assert len(kept) == 400
    assert len(gc.get_objects()) - before < 100 * 7


def test_garbage_collection_visits_seven_objects_that_keep_declarations_on_a_table() -> None:
    metadata, declarations = MetaData(), [_own_rows() for _ in range(100)]
    tables = [Table(f"table_{number}", metadata, Column("user_id", Text)) for number in range(100)]
    # The list keeps them: none that is freed meanwhile is subtracted.
    before = gc.get_objects()
    for table, declaration in zip(tables, declarations, strict=True):
        declare_on(table, declaration)
    assert len(gc.get_objects()) - len(before) < 100 * 8


def test_expressions_of_many_tables_compile_no_statement_and_one_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[object] = []

    class Counting(PGTypeCompiler):
        def process(self, type_: TypeEngine[Any], **kw: Any) -> str:
            compiled.append(type_)
            return super().process(type_, **kw)

    def counted(*arguments: Any) -> str:
        compiled.append(arguments[0])
        return expression_text(*arguments)

    monkeypatch.setattr(expressions, "_FAMILIES", {})
    monkeypatch.setattr(expressions._DIALECT, "type_compiler_instance", Counting(expressions._DIALECT))
    monkeypatch.setattr(collect, "expression_text", counted)
    assert len(declared([_models(20)]).policies) == 80
    assert [str(one) for one in compiled] == ["TEXT"]


class _Handle(Text):
    """A type of the application, with a DDL of its own."""


@compiles(_Handle, "postgresql")
def _handle(type_: _Handle, compiler: object, **kw: object) -> str:
    return "CITEXT"


def test_a_variant_and_a_subclass_of_a_known_type_have_families_of_their_own() -> None:
    types = Text(), Text().with_variant(CITEXT(), "postgresql"), _Handle(), Text(), CHAR(3), CHAR(4)
    found = [family_of(Column(type_)) for type_ in types]
    assert found == ["text", "citext", "citext", "text", "char", "char"]
