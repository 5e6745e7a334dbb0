"""Tails of functions' logs, and readers that continue in them."""

from __future__ import annotations

import asyncio

from engine.http.live_logs import TAILS, LogTail, LogTails
from engine.logs.feed import LINE, FunctionLines, LogBoard
from engine.logs.lines import STDOUT, Line, encode
from engine.model import Function
from tests.support.executing import function


def batch(*texts: str) -> FunctionLines:
    return FunctionLines(
        function=function("f"), request_id="r", lines=tuple(Line(1.0, "stdout", text) for text in texts)
    )


def texts(tail: LogTail, position: int, limit: int = 100) -> list[str]:
    return [line.text for lines in tail.take(position, limit)[0] for line in lines.lines]


def test_lines_are_taken_from_any_position_on() -> None:
    tail = LogTail()
    for group in (("a", "b", "c"), ("d",), ("e", "f")):
        tail.put(batch(*group))

    assert [texts(tail, position) for position in (0, 2, 3, 5, 6)] == [
        ["a", "b", "c", "d", "e", "f"],
        ["c", "d", "e", "f"],
        ["d", "e", "f"],
        ["f"],
        [],
    ]
    assert texts(tail, 1, 4) == ["b", "c", "d", "e"]
    assert tail.take(1, 4)[1] == 5


def test_the_oldest_lines_are_dropped_from_a_full_tail() -> None:
    tail = LogTail(limit=10 * (10 + LINE))
    for number in range(1000):
        tail.put(batch(f"{number:010}"))

    assert (tail.start, tail.end) == (990, 1000)
    assert texts(tail, tail.start) == [f"{number:010}" for number in range(990, 1000)]
    for _ in range(1000):
        tail.put(batch(""))  # empty lines fill a tail, too
    assert tail.end - tail.start == 10 * (10 + LINE) // LINE


def test_a_mark_of_another_tail_is_no_position() -> None:
    tail = LogTail()
    tail.put(batch("a", "b"))

    assert tail.read(tail.mark(1)) == 1
    assert [LogTail().read(tail.mark(1)), tail.read(""), tail.read(tail.mark(1) + "x"), tail.read("1")] == [None] * 4


async def test_a_tail_goes_on_without_a_reader() -> None:
    board, owner = LogBoard(), function("f")
    tails = LogTails(board)
    with tails.reading(owner.function_id) as tail:
        pass
    write(board, owner, b"meanwhile")

    with tails.reading(owner.function_id) as again:
        assert again is tail
        assert texts(tail, 0) == ["meanwhile"]


async def test_a_tail_without_a_reader_ends_when_its_time_is_over() -> None:
    board, owner = LogBoard(), function("f")
    tails = LogTails(board, kept=0)
    with tails.reading(owner.function_id) as tail:
        pass
    await asyncio.sleep(0.01)
    write(board, owner, b"too late")

    assert texts(tail, 0) == []


async def test_only_the_last_tails_without_a_reader_go_on() -> None:
    board, left = LogBoard(), list[LogTail]()
    tails = LogTails(board)
    for number in range(1, TAILS + 2):
        with tails.reading(number) as tail:
            left.append(tail)
    for number in range(1, TAILS + 2):
        write(board, function("f", function_id=number), b"meanwhile")

    assert [texts(tail, 0) for tail in left] == [[], *[["meanwhile"]] * TAILS]


def write(board: LogBoard, owner: Function, text: bytes) -> None:
    board.publish(owner, None, encode(1000, STDOUT, text))
