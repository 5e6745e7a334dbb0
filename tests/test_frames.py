"""The wire between engine and instance."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.frames import DONE, READY, RESULT_LIMIT, Answer, AnswerReader, FrameError, answer_frame, invoke_frame


def test_a_whole_answer_in_one_piece_is_read_at_once() -> None:
    frame = answer_frame(DONE, 4002, 12, "straße", b"result")

    assert AnswerReader().feed(frame) == Answer(DONE, 4002, 12 << 10, "straße", b"result")


@given(message=st.text(), result=st.binary(max_size=200), cuts=st.lists(st.integers(0, 250), max_size=6))
def test_an_answer_may_come_in_any_pieces(message: str, result: bytes, cuts: list[int]) -> None:
    frame = answer_frame(READY, 1, 2, message, result)
    edges = [0, *sorted(min(cut, len(frame) - 1) for cut in cuts), len(frame)]
    reader = AnswerReader()

    *early, last = [reader.feed(frame[a:b]) for a, b in pairwise(edges)]

    assert last == Answer(READY, 1, 2048, message, result)
    assert set(early) <= {None}


def test_a_reader_reads_one_answer_after_another() -> None:
    reader = AnswerReader()
    reader.feed(answer_frame(READY, 0, 0, "", b"x" * 10)[:12])
    reader.feed(answer_frame(READY, 0, 0, "", b"x" * 10)[12:])

    answer = reader.feed(answer_frame(DONE, 0, 0, "", b"second"))

    assert answer is not None
    assert answer.result == b"second"


def test_an_answer_to_nothing_behind_the_answer_is_refused() -> None:
    with pytest.raises(FrameError):
        AnswerReader().feed(answer_frame(DONE, 0, 0, "", b"") + b"x")


@pytest.mark.parametrize("length", [0, 5, RESULT_LIMIT + (2 << 20), (1 << 32) - 1])
def test_a_frame_of_impossible_length_is_refused_before_it_is_stored(length: int) -> None:
    with pytest.raises(FrameError):
        AnswerReader().feed(length.to_bytes(4, "big"))


def test_a_message_longer_than_its_frame_is_refused() -> None:
    frame = bytearray(answer_frame(DONE, 0, 0, "ab", b""))
    frame[14] = 99

    with pytest.raises(FrameError):
        AnswerReader().feed(bytes(frame))


def test_an_invocation_carries_id_alias_and_event() -> None:
    frame = invoke_frame("id", "live", b"{}")

    assert frame == b"\0\0\0\x0b\x02\x02\x04idlive{}"
