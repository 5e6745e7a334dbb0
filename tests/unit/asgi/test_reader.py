"""Reader of requests: memory of incomplete heads."""

from __future__ import annotations

import pytest

from engine.asgi.reader import RequestReader

LINE, FIELD, END = b"GET / HTTP/1.1\r\nHost: a\r\n", b"a:b\r\n", b"\r\n"
COUNT = 1000
PARSED = [(b"host", b"a"), *[(b"a", b"b")] * COUNT]


@pytest.mark.parametrize("pieces", [[LINE + FIELD * COUNT], [LINE, *[FIELD] * COUNT]])
def test_fields_are_kept_as_bytes_until_the_head_is_complete(pieces: list[bytes]) -> None:
    reader = RequestReader()
    for piece in pieces:
        assert reader.read(piece, 0) == len(piece)
    before = list(reader.headers)
    reader.read(END, 0)

    assert (before, len(reader.headers)) == ([], len(b"".join(pieces).split(b"\r\n")) - 2)


def test_a_head_in_pieces_has_the_fields_of_a_whole_one() -> None:
    whole, cut = RequestReader(), RequestReader()
    head = LINE + FIELD * COUNT + END
    whole.read(head, 0)
    for byte in head:
        cut.read(bytes([byte]), 0)

    assert whole.headers == cut.headers == PARSED
