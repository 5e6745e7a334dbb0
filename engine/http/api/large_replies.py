"""Replies that may be large: code packages, which are read from disk while they are sent, and lists."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import anyio.to_thread
import msgspec

from engine.asgi.streaming import Stream, Write
from engine.asgi.wire import JSON, Reply

STEP = 256 << 10  #: bytes of a list that are encoded at a time
PIECE = 192 << 10  #: bytes that are read at a time; a multiple of three, as base64 needs


def with_code(reply: Callable[[str], object], code: Path, size: int) -> Stream:
    """Return the JSON reply ``reply(text)``, in which the text is the base64 of the file ``code``.

    The file has ``size`` bytes.
    """
    word = uuid.uuid4().hex
    before, _, after = msgspec.json.encode(reply(word)).partition(word.encode())
    length = len(before) + (size + 2) // 3 * 4 + len(after)

    async def send(write: Write) -> None:
        await write(before)
        with await anyio.to_thread.run_sync(code.open, "rb") as file:
            while piece := await anyio.to_thread.run_sync(lambda: base64.b64encode(file.read(PIECE))):
                await write(piece)
        await write(after)

    return Stream(content_type=JSON, headers=((b"Content-Length", b"%d" % length),), run=send)


def whole_file(file: IO[bytes], size: int, content_type: bytes, *headers: tuple[bytes, bytes]) -> Stream:
    """Return a reply with the content of an open file, which is closed afterwards."""

    async def send(write: Write) -> None:
        with file:
            while piece := await anyio.to_thread.run_sync(file.read, PIECE):
                await write(piece)

    return Stream(content_type=content_type, headers=(*headers, (b"Content-Length", b"%d" % size)), run=send)


class LargeList(Stream, frozen=True, kw_only=True):
    """JSON reply with a list. Each of ``pieces`` is some items of it, encoded and separated by commas."""

    before: bytes
    pieces: Sequence[bytes]
    after: bytes


async def list_reply(name: str, items: Iterable[object], **more: object) -> Reply:
    """Return a JSON reply with the list ``name`` and the fields ``more``.

    Between steps of a large list, the event loop serves other requests.
    """
    pieces: list[bytes] = []
    encoded, size = [], 0
    for item in items:
        encoded.append(msgspec.json.encode(item))
        size += len(encoded[-1])
        if size > STEP:
            pieces.append(b",".join(encoded))
            encoded, size = [], 0
            await asyncio.sleep(0)
    if encoded:
        pieces.append(b",".join(encoded))
    before = b'{"%b":[' % name.encode()
    after = b"]%b}" % b"".join(b',"%b":%b' % (key.encode(), msgspec.json.encode(more[key])) for key in more)
    return Reply(body=b"".join((before, *pieces, after))) if len(pieces) <= 1 else _large_list(before, pieces, after)


async def with_items(reply: LargeList, change: Callable[[Any], Any]) -> LargeList:
    """Return the reply with ``change(item)`` in place of each item. Between pieces, other requests are served."""
    pieces = []
    for piece in reply.pieces:
        items = [change(item) for item in msgspec.json.decode(b"[%b]" % piece)]
        pieces.append(msgspec.json.encode(items)[1:-1])
        await asyncio.sleep(0)
    return _large_list(reply.before, pieces, reply.after)


def _large_list(before: bytes, pieces: Sequence[bytes], after: bytes) -> LargeList:
    sent = [before, *(piece if number == 0 else b"," + piece for number, piece in enumerate(pieces)), after]

    async def send(write: Write) -> None:
        for piece in sent:
            await write(piece)
            await asyncio.sleep(0)

    length = (b"Content-Length", b"%d" % sum(map(len, sent)))
    return LargeList(content_type=JSON, headers=(length,), run=send, before=before, pieces=pieces, after=after)
