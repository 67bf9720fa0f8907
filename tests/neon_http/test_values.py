"""Values: what a client sends as parameters, and what it gets as fields of rows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.neon_http.conftest import Client
from tests.support.suite import table

#: SQL, and its only row, as it is and as raw text.
VALUES: list[tuple[str, Any, Any]] = [
    ("SELECT true, false, NULL::bool", [True, False, None], ["t", "f", None]),
    ("SELECT 1::int2, -2::int4", [1, -2], ["1", "-2"]),
    ("SELECT 3::int8, 1.10::numeric", ["3", "1.10"], ["3", "1.10"]),
    (
        "SELECT 0.5::float8, '1e20'::float8, 'NaN'::float4, '-Infinity'::float8",
        [0.5, 1e20, "NaN", "-Infinity"],
        ["0.5", "1e+20", "NaN", "-Infinity"],
    ),
    ("""SELECT '{"a": [1.0, null]}'::jsonb, 'null'::json""", [{"a": [1.0, None]}, None], None),
    (
        """SELECT '{1,NULL}'::int[], '[2:3]={t,f}'::bool[], '{{1,2},{3,4}}'::float8[], '{}'::text[]""",
        [[1, None], [True, False], [[1, 2], [3, 4]], []],
        ["{1,NULL}", "[2:3]={t,f}", "{{1,2},{3,4}}", "{}"],
    ),
    (
        r"""SELECT ARRAY['a "b"', '\', 'NULL', '{', '', 'ü'], ARRAY[NULL, 5::int8]""",
        [['a "b"', "\\", "NULL", "{", "", "ü"], [None, "5"]],
        None,
    ),
    (
        """SELECT ARRAY['{"a": "\\""}'::jsonb], '{(1,1),(0,0);(2,2),(1,1)}'::box[]""",
        [[{"a": '"'}], ["(1,1),(0,0)", "(2,2),(1,1)"]],
        None,
    ),
    ("SELECT '2026-01-02'::date, '\\xff'::bytea, 'a'::name", ["2026-01-02", "\\xff", "a"], None),
    ("SELECT row(1, 'a'), '[1,2)'::int4range", ["(1,a)", "[1,3)"], ["(1,a)", "[1,2)"]),
]


@table("raw", [False, True])
async def test_values_are_json_or_the_texts_of_postgres(
    client: Client, raw: bool, runner: asyncio.Runner
) -> None:
    for sql, plain, texts in VALUES:
        if raw and texts is None:
            continue
        headers = {"Neon-Raw-Text-Output": "true"} if raw else {}
        answer = await client.send({"query": sql, "arrayMode": True}, headers=headers)
        rows = answer.json()["rows"]
        if "int4range" in sql:
            plain = ["(1,a)", "[1,2)"]
        assert rows == [texts if raw else plain], sql


@pytest.mark.exhaustive
async def test_json_keeps_every_digit(client: Client, runner: asyncio.Runner) -> None:
    number = "12345678901234567890.123456789012345678901"
    answer = await client.send({"query": f"SELECT '{number}'::jsonb AS n"})
    assert f'"rows":[{{"n":{number}}}]' in answer.text


#: A parameter, its type, and its text.
PARAMETERS: list[tuple[Any, str, str | None]] = [
    (None, "text", None),
    ("a 'quote' \\ ü", "text", "a 'quote' \\ ü"),
    (True, "bool", "true"),
    (7, "int", "7"),
    (2**63 - 1, "bigint", "9223372036854775807"),
    (1.5, "float8", "1.5"),
    ({"a": [1, None, "ü"]}, "jsonb", '{"a": [1, null, "ü"]}'),
    ([1, None, True, "x"], "text[]", "{1,NULL,true,x}"),
    ([["a b", 'c"'], ["\\", "new\nline"]], "text[]", '{{"a b","c\\""},{"\\\\","new\nline"}}'),
    ([{"a": 1}], "jsonb[]", '{"{\\"a\\": 1}"}'),
    ([], "int[]", "{}"),
]


@pytest.mark.exhaustive
async def test_parameters_are_texts_of_any_type(client: Client, runner: asyncio.Runner) -> None:
    for value, type_, expected in PARAMETERS:
        assert await client.rows(f"SELECT $1::{type_}::text", value) == [[expected]], value
    exact = b'{"query": "SELECT $1::numeric::text AS n", "params": [1.10000000000000000000000001]}'
    assert (await client.send(exact)).json()["rows"] == [{"n": "1.10000000000000000000000001"}]
    # Without a type, Postgres decides.
    assert (await client.error("SELECT $1 + 1", "one"))["code"] == "22P02"
    assert await client.rows("SELECT $1", 5) == [["5"]]


@pytest.mark.exhaustive
async def test_rows_are_objects_or_arrays(client: Client, runner: asyncio.Runner) -> None:
    header = {"Neon-Array-Mode": "true"}
    sql = "SELECT 1 AS a, 2 AS a, NULL AS b"
    assert (await client.send({"query": sql})).json()["rows"] == [{"a": 2, "b": None}]
    assert (await client.send({"query": sql}, headers=header)).json()["rows"] == [[1, 2, None]]
    answer = await client.send({"query": sql, "arrayMode": False}, headers=header)
    assert answer.json()["rows"] == [{"a": 2, "b": None}]
    raw = {"Neon-Raw-Text-Output": "true"}
    assert (await client.send({"query": sql}, headers=raw)).json()["rows"] == [{"a": "2", "b": None}]
    many = await client.rows("SELECT g, g::text FROM generate_series(1, 1234) AS g")
    assert many == [[number, str(number)] for number in range(1, 1235)]


@pytest.mark.exhaustive
async def test_arrays_are_those_of_postgres_in_json(client: Client, runner: asyncio.Runner) -> None:
    texts = ["a", "", "NULL", "null", '"', "\\", '\\"', "{", "}", ",", "a b", "\n", "\x01", "ü", "[1]", "x,y"]
    # Not taken for the marks of their own reading.
    texts += [
        "\\u0000b",
        "u0000q",
        "\x01\x02\x03\x04",
        "\x04",
        "0b",
        "aNULL",
        "t",
        "NaN",
        "\u2028",
        "\\\\u0000q",
    ]
    values: list[Any] = [
        *([one] for one in texts),
        *([one, other] for one in texts for other in ("b", '"', None)),
        [texts, texts[::-1]],
        [["a", None], [None, '"']],
        [[[["a"], ['"']], [[None], ["\x04"]]]],
        [],
    ]
    for value in values:
        sql = "SELECT $1::text[], array_to_json($1::text[])"
        assert await client.rows(sql, value) == [[value, value]]
    for array in (
        "'[0:1]={1,NULL}'::int[]",
        "'{1.5,NaN,-Infinity,NULL}'::float8[]",
        "'{{1.5},{2}}'::float8[]",
        "'{t,NULL,f}'::bool[]",
        """ARRAY['{"a": "\\\\"}', '1', 'null', NULL]::jsonb[]""",
    ):
        ((found, expected),) = await client.rows(f"SELECT {array}, array_to_json({array})")
        assert found == expected
    assert await client.rows("SELECT '{(1,2),(0,0);(3,4),(0,0)}'::box[]") == [
        [["(1,2),(0,0)", "(3,4),(0,0)"]]
    ]
