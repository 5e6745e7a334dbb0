"""Reader of requests: memory of incomplete heads."""

from __future__ import annotations

import pytest

from engine.asgi.heads import HEAD_LIMIT
from engine.asgi.reader import RequestReader
from engine.asgi.responses import Refusal

LINE, FIELD, END = b"GET / HTTP/1.1\r\nHost: a\r\n", b"a:b\r\n", b"\r\n"
COUNT = 1000


@pytest.mark.parametrize("pieces", [[LINE + FIELD * COUNT], [LINE, *[FIELD] * COUNT]])
def test_fields_are_kept_as_bytes_until_the_head_is_complete(pieces: list[bytes]) -> None:
    reader = RequestReader()
    for piece in pieces:
        assert reader.read(piece, 0) == len(piece)
    before = list(reader.headers)
    reader.read(END, 0)

    assert (before, len(reader.headers)) == ([], len(b"".join(pieces).split(b"\r\n")) - 2)


@pytest.mark.parametrize("size", [1, 2, 1001, 2 * HEAD_LIMIT])
def test_blank_lines_before_a_request_count_with_its_head(size: int) -> None:
    reader, blank, sent = RequestReader(), b"\r\n" * HEAD_LIMIT, 0

    def read_all() -> None:
        nonlocal sent
        while sent < len(blank):
            sent += reader.read(blank[sent : sent + size], 0)

    with pytest.raises(Refusal, match="431"):
        read_all()
    assert HEAD_LIMIT - size < sent <= HEAD_LIMIT or size > HEAD_LIMIT


def test_the_fields_of_a_head_are_parsed_once_however_it_arrives() -> None:
    calls = 0

    class Counting(RequestReader):
        def _parse(self, piece: bytes | memoryview) -> bool:
            nonlocal calls
            calls += 1
            return super()._parse(piece)

    reader = Counting()
    for byte in LINE + FIELD * COUNT + END:
        reader.read(bytes([byte]), 0)

    assert calls == 1
