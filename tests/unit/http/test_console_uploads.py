"""Forms with a file: reading of multipart bodies, however they are cut into pieces."""

from __future__ import annotations

import pytest

from engine.asgi.wire import ClientDisconnect, Message
from engine.errors import InvalidRequest, PayloadTooLarge
from engine.http.console.uploads import MultipartReader, UploadedFile

HEADERS = {b"content-type": b"multipart/form-data; boundary=edge"}
FILE = b"\r\n--edg" * 3 + b"PK\x03\x04" + bytes(range(256))


def body_of(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        b"--edge\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), value) for head, value in parts
    )
    return body + b"--edge--\r\n"


def reader(body: bytes, step: int, *, limit: int = 10_000, ends: bool = True) -> MultipartReader:
    """Return a reader of a body that comes in pieces. Unless it ``ends``, the client disconnects behind it."""
    pieces = [body[start : start + step] for start in range(0, len(body), step)]

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces) or not ends}

    return MultipartReader(receive, HEADERS, limit=limit, most=20, size=1000)


async def content(file: UploadedFile | None) -> bytes:
    assert file is not None
    return b"".join([piece async for piece in file.pieces])


@pytest.mark.parametrize("step", [1, 2, 7, 64, 10_000])
async def test_fields_and_the_file_are_read(step: int) -> None:
    body = body_of(('name="a"', "é\r\nb".encode()), ('name="b"', b""), ('name="file"; filename="x %22y.zip"', FILE))

    pairs, file = await reader(body, step).read()

    assert pairs == [("a", "é\r\nb"), ("b", "")]
    assert file is not None
    assert file.filename == 'x "y.zip'
    assert await content(file) == FILE


@pytest.mark.parametrize("step", [1, 5, 10_000])
async def test_a_form_whose_file_was_not_chosen_has_none(step: int) -> None:
    pairs, file = await reader(body_of(('name="a"', b"1"), ('name="file"; filename=""', b"")), step).read()

    assert (pairs, file) == ([("a", "1")], None)


@pytest.mark.parametrize(("ends", "error"), [(True, InvalidRequest), (False, ClientDisconnect)])
async def test_a_file_that_breaks_off_is_an_error(ends: bool, error: type[Exception]) -> None:
    _, file = await reader(body_of(('name="file"; filename="x"', FILE))[:-20], 50, ends=ends).read()

    with pytest.raises(error):
        await content(file)


async def test_fields_and_files_beyond_their_limits_are_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        await reader(body_of(('name="a"', b"x" * 2000)), 100).read()
    _, file = await reader(body_of(('name="file"; filename="x"', b"x" * 2000)), 100, limit=1000).read()
    with pytest.raises(PayloadTooLarge):
        await content(file)


async def test_a_form_of_too_many_fields_is_refused() -> None:
    body = body_of(*[('name="a"', b"")] * 21)

    with pytest.raises(InvalidRequest, match="more than 20 fields"):
        await reader(body, 10_000, limit=len(body)).read()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b"--edge\r\n",
        b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--",
        body_of(('name="a"', b"\xff")),
    ],
)
async def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises((InvalidRequest, ClientDisconnect)):
        await reader(body, 100).read()
