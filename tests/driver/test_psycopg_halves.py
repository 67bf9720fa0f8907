"""The asynchronous half of the driver for psycopg says what the synchronous one says."""

from __future__ import annotations

import ast
import inspect

import pytest

from sqla_rls.driver import psycopg

_SPELLED: dict[str, str] = {
    "An asynchronous": "A",
    "AsyncIterator": "Iterator",
    "Async": "",
    "asynccontextmanager": "contextmanager",
    "async ": "",
    "await ": "",
}


@pytest.mark.parametrize("name", ["Cursor", "ServerCursor", "Connection"])
def test_both_halves_are_one(name: str) -> None:
    classes = {
        node.name: ast.unparse(node)
        for node in ast.parse(inspect.getsource(psycopg)).body
        if isinstance(node, ast.ClassDef)
    }
    there = classes[f"Async{name}"]
    for spelled, synchronous in _SPELLED.items():
        there = there.replace(spelled, synchronous)
    assert there == classes[name]
