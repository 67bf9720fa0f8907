"""Options are checked when they are made."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sqla_rls.exc import DeclarationError
from sqla_rls.session.options import BindingOptions, SessionOptions


@pytest.mark.parametrize(
    "settings",
    [
        {"role": "postgres"},
        {"Request.JWT.claims": "{}"},
        {"pg_session_jwt.jwt": "x"},
        {"session_authorization": "postgres"},
        {"work_mem', true), set_config('role": "postgres"},
        {"work%s": "1"},
        {"work_mem": 4},
    ],
)
def test_settings_are_names_and_text_and_never_who_the_caller_is(settings: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        SessionOptions(settings=settings)


def test_settings_may_be_spelled_in_any_case() -> None:
    assert SessionOptions(settings={"Search_Path": "app", "TimeZone": "UTC"}).settings == {
        "search_path": "app",
        "timezone": "UTC",
    }


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"transport": "pipline"}, "'pipeline'"),
        ({"transport": "message"}, "'with_begin'"),
        ({"signing": "Required"}, "'required'"),
        ({"signing": True}, "'auto', 'off', 'required'"),
        ({"reset": None}, "'settings', 'all', 'none'"),
        ({"reset": []}, "'settings', 'all', 'none'"),
        ({"set_role": "no"}, "True or False"),
        ({"member_of": {"admin": "editor"}}, "editor"),
        ({"member_of": ["admin"]}, "editor"),
        ({"principal_claims": "org_id"}, "org_id"),
        ({"principal_claims": [1]}, "org_id"),
        ({"reset": "all", "transport": "statement"}, "reset='settings'"),
        ({"reset": "all", "set_role": False}, "reset='settings'"),
    ],
)
def test_an_option_that_is_none_is_refused_when_it_is_made(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(hint)):
        BindingOptions(**options)


def test_an_option_with_another_name_is_no_option() -> None:
    wrong: Any = {"way": "pipeline"}
    with pytest.raises(TypeError, match="way"):
        BindingOptions(**wrong)
