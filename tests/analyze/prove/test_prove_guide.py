"""The guide of ``sqla-rls prove`` shows real output."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sqla_rls.cli import main
from tests.support.modules import imported_anew

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "prove.md"


@pytest.mark.exhaustive
def test_the_guide_shows_real_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLA_RLS_WRITE_GUIDE=1 writes the listings."""
    guide = GUIDE.read_text(encoding="utf-8")
    (tmp_path / "models.py").write_text(guide.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    written = guide
    for call in ("prove --models models:Base", "prove --models todos.models:Base --mutants"):
        with imported_anew("models"):
            told = CliRunner().invoke(main, call.split())
        listing = re.compile(rf"```console\n\$ sqla-rls {re.escape(call)}\n.*?```", re.DOTALL)
        shown = f"```console\n$ sqla-rls {call}\n{told.output}```"
        assert listing.search(written)
        written = listing.sub(lambda match, shown=shown: shown, written)  # type: ignore[misc]
    if os.environ.get("SQLA_RLS_WRITE_GUIDE"):
        GUIDE.write_text(written, encoding="utf-8")
    assert GUIDE.read_text(encoding="utf-8") == written
