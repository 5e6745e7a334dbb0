"""Protocol between engine and instance."""

from __future__ import annotations

from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runtimes.protocol import (
    DONE,
    LOG,
    NOTICE_TIMEOUT,
    PROGRESS,
    READY,
    RESULT_LIMIT,
    Answer,
    FrameError,
    FrameReader,
    Logged,
    Progress,
    invoke_frame,
    notice_frame,
    setup_frame,
    stop_frame,
)


def answer_frame(kind: int, ticket: int, code: int, memory_kib: int, message: str, result: bytes) -> bytes:
    """Return the frame of an answer as an instance sends it."""
    text = message.encode()
    length = 15 + len(text) + len(result)
    return pack("!IBIHII", length, kind, ticket, code, memory_kib, len(text)) + text + result


def log_frame(ticket: int, at: int, stream: int, text: bytes) -> bytes:
    return pack("!IBIQB", 14 + len(text), LOG, ticket, at, stream) + text


def progress_frame(ticket: int, fraction: float, note: str) -> bytes:
    text = note.encode()
    return pack("!IBII", 9 + len(text), PROGRESS, ticket, round(fraction * 1_000_000)) + text


def test_a_whole_answer_in_one_piece_is_read_at_once() -> None:
    frame = answer_frame(DONE, 7, 4002, 12, "straße", b"result")

    assert list(FrameReader().feed(frame)) == [Answer(DONE, 4002, 12 << 10, "straße", b"result", 7)]


def test_progress_is_read_with_its_note() -> None:
    frames = FrameReader().feed(progress_frame(7, 0.25, "straße") + progress_frame(8, 1.0, ""))

    assert list(frames) == [Progress(7, 0.25, "straße"), Progress(8, 1.0, "")]


def test_forged_progress_is_at_most_whole() -> None:
    assert FrameReader().feed(progress_frame(7, 4000.0, ""))[0] == Progress(7, 1.0, "")


def test_a_notice_carries_ticket_and_reason() -> None:
    assert notice_frame(258, NOTICE_TIMEOUT) == b"\0\0\0\x06\x04\0\0\x01\x02\x02"


@given(message=st.text(), result=st.binary(max_size=200), cuts=st.lists(st.integers(0, 350), max_size=6))
def test_frames_may_come_in_any_pieces(message: str, result: bytes, cuts: list[int]) -> None:
    stream = (
        log_frame(5, 1000, 2, b"a line\n") + answer_frame(READY, 0, 1, 2, message, result) + log_frame(0, 1, 3, b"")
    )
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = FrameReader()

    read = [frame for a, b in pairwise(edges) for frame in reader.feed(stream[a:b])]

    assert read == [Logged(5, 1000, 2, b"a line\n"), Answer(READY, 1, 2048, message, result), Logged(0, 1, 3, b"")]


@pytest.mark.parametrize("length", [0, 5, 8, RESULT_LIMIT + (2 << 20), (1 << 32) - 1])
def test_a_frame_of_impossible_length_is_refused_before_it_is_stored(length: int) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(length.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "frame",
    [
        answer_frame(9, 1, 0, 0, "", b""),
        log_frame(0, 1, 3, b"").replace(b"\x03", b"\x02", 1),
        log_frame(0, 1, 3, b"")[:-1].replace(b"\x0e", b"\x0d", 1),
        answer_frame(DONE, 1, 0, 0, "ab", b"")[:-3] + b"\x63ab",
    ],
    ids=["of an unknown kind", "too short for an answer", "too short for lines", "with a message longer than itself"],
)
def test_a_frame_that_holds_no_answer_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(frame)


def test_an_invocation_carries_ticket_id_alias_and_event() -> None:
    frame = invoke_frame(258, "id", "live", b"{}")

    assert frame == b"\0\0\0\x0f\x02\0\0\x01\x02\x02\x04idlive{}"


def test_a_stop_is_a_frame_without_a_body() -> None:
    assert (stop_frame(), setup_frame({})) == (b"\0\0\0\x01\x03", b"\0\0\0\x03\x01{}")
