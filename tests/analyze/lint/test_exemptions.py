"""The exemptions that findings suggest are those of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqla_rls.analyze.lint.exemptions import read_settings
from tests.analyze.lint.examples import OWN, TABLE, Examples, policy


@pytest.mark.exhaustive
def test_the_exemption_of_a_migrating_role_is_that_of_the_finding(examples: Examples, tmp_path: Path) -> None:
    name = 'the "migrator"'
    quoted = name.replace('"', '""')
    sql = f"""{TABLE}{policy(OWN)} CREATE ROLE "{quoted}" LOGIN NOINHERIT BYPASSRLS IN ROLE authenticated;"""
    (found,) = examples.look(sql, select=["login-role"]).findings
    remedy, _, exemption = (found.remedy.text or "").partition(": ")
    head, _, keys = exemption.partition("]] ")
    settings = tmp_path / "pyproject.toml"
    settings.write_text(f"{head}]]\n" + keys.replace(", ", "\n"), encoding="utf-8")

    assert remedy == f"If only migrations log in as {name}, exempt it in pyproject.toml"
    (read,) = read_settings(settings).exemptions
    assert read.has(found)
