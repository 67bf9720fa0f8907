"""What may be told about binding."""

from __future__ import annotations

from typing import Any

import pytest

from sqla_rls.exc import DeclarationError
from sqla_rls.session.options import Rules


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
        Rules(settings=settings)


def test_settings_may_be_spelled_in_any_case() -> None:
    assert Rules(settings={"Search_Path": "app", "TimeZone": "UTC"}).settings == {
        "search_path": "app",
        "timezone": "UTC",
    }
