"""The answers to messages that went ahead of asyncpg's own: asyncpg gets the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sqla_rls.driver import asyncpg_pipeline as pipeline

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]


class Recorder:
    """A transport and a protocol that note what they get."""

    def __init__(self) -> None:
        self.protocol: Any = self
        self.got: list[bytes] = []
        self.is_aborted = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def abort(self) -> None:
        self.is_aborted = True

    def data_received(self, data: bytes) -> None:
        self.got.append(data)


EXPECTED = pipeline.answered(b"BEGIN") + pipeline.answered(b"RESET") + pipeline.answered(b"SELECT 1", b"0")

NOTICE = b"N\0\0\0\x0cSNOTICE\0"

STATUS = b"S\0\0\0\x0aa\0on\0\0"

ERROR = b"E\0\0\0\x13SERROR\0C22023\0\0"

ROWS = b"2\0\0\0\x04C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T"

REFUSED = b"Z\0\0\0\x05E"


def received(pieces: list[bytes], *, is_synced: bool = False) -> tuple[Recorder, pipeline.Answers]:
    recorder = Recorder()
    answers = pipeline.Answers(recorder, recorder)
    answers.expect(EXPECTED)
    if is_synced:
        answers.expect_ready()
    for piece in pieces:
        recorder.protocol.data_received(piece)
    return recorder, answers


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The pieces in which *data* may come."""
    yield from ([data[:end], data[end:]] for end in range(1, len(data)))
    for size in (1, 2, 3, 7, len(data)):
        yield [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.one_postgres
def test_asyncpg_gets_what_follows_the_expected_answers_however_they_come() -> None:
    begun = pipeline.answered(b"BEGIN")
    for data, expected in (
        (EXPECTED + ROWS, ROWS),
        (EXPECTED + NOTICE + ROWS, NOTICE + ROWS),
        (NOTICE + STATUS + EXPECTED + ROWS, NOTICE + STATUS + ROWS),
        (begun + NOTICE + EXPECTED[len(begun) :] + ROWS, NOTICE + ROWS),
        (ERROR + REFUSED, ERROR + REFUSED),
        (begun + NOTICE + ERROR + REFUSED, NOTICE + ERROR + REFUSED),
    ):
        for pieces in cuts(data):
            recorder, answers = received(pieces)
            assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
            assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
@pytest.mark.exhaustive
def test_the_answer_to_a_sync_comes_ahead_of_the_next_answers() -> None:
    for data, expected in (
        (pipeline.IDLE + EXPECTED + ROWS, ROWS),
        (STATUS + pipeline.IDLE + NOTICE + EXPECTED + ROWS, STATUS + NOTICE + ROWS),
        (pipeline.IDLE + ERROR + REFUSED, ERROR + REFUSED),
    ):
        for end in range(1, len(pipeline.IDLE) + 1):
            for pieces in cuts(data[end:]):
                recorder = Recorder()
                answers = pipeline.Answers(recorder, recorder)
                answers.expect(pipeline.IDLE)
                recorder.protocol.data_received(data[:end])
                answers.expect(EXPECTED)
                for piece in pieces:
                    recorder.protocol.data_received(piece)
                assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
                assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
def test_what_went_ahead_alone_ends_with_a_sync() -> None:
    begun = pipeline.answered(b"BEGIN")
    for data, expected in (
        (EXPECTED + pipeline.READY + ROWS, ROWS),
        (EXPECTED + STATUS + pipeline.READY + ROWS, STATUS + ROWS),
        (begun + ERROR + STATUS + REFUSED + ROWS, STATUS + ROWS),
    ):
        for pieces in cuts(data):
            recorder, answers = received(pieces, is_synced=True)
            assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
            assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
def test_another_answer_closes_the_connection() -> None:
    begun, ready = pipeline.answered(b"BEGIN"), b"Z\0\0\0\x05I"
    for data in (
        *(ready, pipeline.READY, ROWS, begun + pipeline.READY, begun + begun, EXPECTED[:-1] + b"\1"),
        *(pipeline.answered(b"SELECT 1", b"0"), EXPECTED.replace(b"SELECT 1", b"SELECT 2")),
    ):
        for pieces in cuts(data):
            recorder, _ = received(pieces)
            assert (recorder.got, recorder.is_aborted) == ([], True)
