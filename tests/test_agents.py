"""llms.txt and the skill for coding agents say the same as the documents."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.agents import ROOT, SKILL, written


@pytest.mark.one_postgres
@pytest.mark.parametrize("path", ["llms.txt", SKILL])
def test_the_text_is_that_of_the_documents(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == written()[path], "run python -m tests.agents"


@pytest.mark.one_postgres
def test_the_skill_is_short_and_its_links_lead_to_files() -> None:
    skill = written()[SKILL]
    _, head, body = skill.split("---\n", 2)
    assert set(yaml.safe_load(head)) == {"name", "description"}
    assert len(yaml.safe_load(head)["description"]) <= 1024
    assert len(body.splitlines()) < 250
    links = re.findall(r"sqla-rls/blob/main/([^)#]+)", skill + written()["llms.txt"])
    assert len(links) > 40
    assert [link for link in links if not (ROOT / link).exists()] == []
