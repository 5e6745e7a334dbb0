"""Stored format of logs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.logs.lines import LOGGER, STDERR, STDOUT, Line, decode, encode, framed_log, last, plain


def test_every_line_carries_time_and_stream() -> None:
    log = encode(1_500, STDOUT, b"one\ntwo\n") + encode(2_000, STDERR, b"three") + encode(2_001, LOGGER, b"")

    assert list(decode(log)) == [
        Line(1.5, "stdout", "one"), Line(1.5, "stdout", "two"), Line(2.0, "stderr", "three"), Line(2.001, "logger", ""),
    ]  # fmt: skip


@given(st.lists(st.text(), min_size=1))
def test_text_comes_back_as_it_was_written(texts: list[str]) -> None:
    log = b"".join(encode(1, STDOUT, text.encode() + b"\n") for text in texts)

    assert plain(log).decode() == "".join(text + "\n" for text in texts)


def test_bytes_outside_the_format_are_text_without_a_time() -> None:
    assert list(decode(b"from an older engine\n")) == [Line(0.0, "stdout", "from an older engine")]
    assert list(decode(b"")) == []


@given(st.lists(st.binary(max_size=30), max_size=9), st.integers(20, 300))
def test_the_end_of_a_log_is_no_longer_than_asked_and_each_of_its_lines_whole_in_front(
    texts: list[bytes], size: int
) -> None:
    log = b"".join(encode(1, STDERR, text) for text in texts)

    end = last(log, size)

    assert len(end) <= size
    assert len(log) <= size or len(end) > size - 17
    assert {line.stream for line in decode(end)} <= {"stderr"}
    assert log.endswith(end[16:])


def test_a_log_is_framed_as_documented() -> None:
    text = framed_log(
        encode(1, STDOUT, b"a line"),
        request_id="id",
        version="v1",
        seconds=0.065828,
        memory_used=22516072,
        memory_size=128,
    )

    assert text.decode().splitlines() == [
        "Start invoke request 'id', version: v1",
        "a line",
        "Finish invoke request 'id', duration: 65.828ms, billing duration: 66ms, "
        "memory used: 21.473MB, billing memory: 128MB",
    ]
