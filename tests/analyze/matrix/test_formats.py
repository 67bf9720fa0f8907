"""Each format of a matrix, and of the difference of two, has each entry, as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sqla_rls.analyze.matrix import Entry, Matrix, WayAround
from sqla_rls.analyze.matrix.difference import EntryChange, MatrixDiff, WayChange
from sqla_rls.analyze.matrix.formats import FORMATS, html_
from sqla_rls.analyze.verdict import Counterexample
from sqla_rls.analyze.why.explanation import COMMANDS

pytestmark = pytest.mark.one_postgres

TABLE = "public.<docs>"
OWN = Entry(
    object=TABLE,
    kind="table",
    role="app",
    command="SELECT",
    verdict="condition",
    condition="own rows",
    sql="policy own FOR SELECT USING (owner = auth.user_id())",
)
ALL = Entry(object=TABLE, kind="table", role="app", command="SELECT", verdict="always", condition="", sql="")
WAY = WayAround(
    kind="view",
    object="public.titles",
    role="app",
    commands=("SELECT",),
    reaches=(TABLE,),
    text="reads with the rights of owner",
    sql="",
)
EXAMPLE = Counterexample(
    claims={"sub": "alice"},
    rows={TABLE: [{"id": 1}]},
    statement="SELECT 1",
    before="0 rows",
    after="1 row",
    text="alice as app can read a row more",
)


def matrix(entry: Entry, *ways: WayAround) -> Matrix:
    entries = tuple(replace(entry, command=command) for command in COMMANDS)
    return Matrix(name="a database", roles=("app",), all_roles=("app",), entries=entries, ways=ways)


DIFFERENCE = MatrixDiff(
    before=matrix(OWN),
    after=matrix(ALL, WAY),
    entries=(EntryChange(before=OWN, after=ALL, direction="opens", counterexamples=(EXAMPLE,)),),
    ways=(WayChange(before=None, after=WAY),),
    left_out=("public.logs: not tried",),
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_the_entry_and_the_way_around(name: str) -> None:
    shown = FORMATS[name](matrix(OWN, WAY))
    assert "own rows" in shown
    assert "titles" in shown
    changed = FORMATS[name](DIFFERENCE)
    assert "own rows" in changed
    assert "always" in changed


def test_the_page_has_names_as_text() -> None:
    for page in (html_(matrix(OWN, WAY)), html_(DIFFERENCE)):
        assert "<docs>" not in page
        assert "own rows" in page
    assert EXAMPLE.text in html_(DIFFERENCE)
