"""The prose check: it finds the words that the rules forbid, and passes over code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prose
from tests.prose import DOCUMENTS, ROOT, UNCHECKED, docstrings, document, main, measure

GOOD = "The policy gives a role its rows. " * 100


def test_the_words_are_found_with_their_lines() -> None:
    table = "| what | code |\n| --- | --- |\n| Nobody's | `what` |\n"
    text = f"# Whoever reads\n\nThe role\nreads, besides.\n\n{table}"
    found = measure("a.md", [(1, text)])
    assert found.forbidden == ((1, "Whoever"), (3, "besides"), (6, "what"), (8, "Nobody"))
    assert found.words == 10
    assert found.is_failure


def test_code_is_no_prose() -> None:
    text = "Call `whatever(what)`.\n\n```python\nwhat = nobody\n```\n\n    anew\n\n<!-- shall -->\n"
    found = measure("a.md", [(1, text)])
    assert found.forbidden == ()
    assert found.words == 2


def test_up_to_three_in_a_thousand_are_allowed() -> None:
    assert len(GOOD.split()) == 700
    assert not measure("a.md", [(1, GOOD + "What is it? What?")]).is_failure
    assert measure("a.md", [(1, GOOD + "What is it? What? Nobody?")]).is_failure
    assert not measure("a.md", [(1, "What is it?")]).is_failure


def test_sentences_are_counted_but_not_those_in_tables() -> None:
    sentence = " ".join(["word"] * 25)
    assert measure("a.md", [(1, f"{sentence}. {sentence}.")]).long == ()
    assert measure("a.md", [(1, f"One.\n\n- {sentence}\n  more.")]).long == ((3, f"{sentence} more."),)
    assert measure("a.md", [(1, f"| a |\n| --- |\n| {sentence} more |\n")]).long == ()


def test_docstrings_are_read_and_comments_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    module = tmp_path / "module.py"
    entry = " ".join(["word"] * 15)
    module.write_text(
        '"""Shall.\n\n``what``"""\n'
        "# whoever\n"
        "def f():\n"
        '    """Return.\n\n    Args:\n'
        f"        one: {entry}\n        two: {entry}, whatever\n"
        '    """\n    return "nobody"\n'
    )
    found = docstrings(module)
    assert found.forbidden == ((1, "Shall"), (8, "whatever"))
    assert found.long == ()


def test_a_document_that_fails_ends_the_check_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("Nobody shall. " * 10)
    (tmp_path / "long.md").write_text("word " * 30)
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "DOCUMENTS", [tmp_path / "README.md", tmp_path / "long.md"])
    monkeypatch.setattr(prose, "UNCHECKED", frozenset())
    error = main(["long.md"])
    assert error
    assert error.startswith("the prose check failed: over 3 forbidden words in 1,000 in README.md.")
    printed = capsys.readouterr().out
    assert "README.md:1: Nobody" in printed
    assert "long.md:1: long: word" in printed
    monkeypatch.setattr(prose, "UNCHECKED", frozenset({"README.md", "long.md"}))
    assert main([]) is None
    assert "long.md is good: remove it from UNCHECKED" in capsys.readouterr().out


def test_only_the_named_modules_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sqla_rls").mkdir()
    (tmp_path / "sqla_rls" / "one.py").write_text('"""Nobody."""')
    (tmp_path / "sqla_rls" / "two.py").write_text('"""Whoever."""')
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "DOCUMENTS", [])
    monkeypatch.setattr(prose, "UNCHECKED", frozenset({"docstrings"}))
    assert main(["sqla_rls/one.py"]) is None
    printed = capsys.readouterr().out
    assert "sqla_rls/one.py:1: Nobody" in printed
    assert "two.py" not in printed


def test_every_document_is_checked_and_what_is_not_yet_exists() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/security/roles.md"} <= names
    assert names >= UNCHECKED - {"docstrings"}


def test_the_documents_are_found_in_folders() -> None:
    assert document(ROOT / "README.md").words > 500
