"""Table of raw exchanges: the bytes that a client sends, the answers, and the requests that the application sees.

Each row is exchanged as written, in pieces of seven bytes, and byte by byte. A cut never changes an answer.
The rows that are ``shared`` hold for the API and for gateways, too. There, the target ``/t`` stands for a path that
accepts POST requests with a JSON body, and ``/g`` for one that answers GET.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import pytest
from msgspec import Struct

from engine.asgi.listener import listen
from tests.support.raw_client import Answer, RawClient, connect, read_answers
from tests.support.scripted_app import PROBE, ScriptedApp, no_problems, problems

#: Head without an end of a request with a body, for all listeners.
POST = b"POST /t HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
PLAIN = POST + b"Content-Length: 2\r\n\r\n42"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /g HTTP/1.1\r\nHost: localhost\r\n"
GARBAGE = b"\x16\x03\x01 garbage\r\n\r\n"
POSTED, GOT = ("POST /t", b"42"), ("GET /g", b"")  #: what the application sees of these requests

OK = 200  #: also stands for the 202 of the API and of gateways
CODE = re.compile(r"FSS\.0\d{3}\Z")
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
CUTS = (0, 7, 1)  #: sizes of the pieces that are sent; 0: as written
MOST_PIECES = 400
LIMIT = 30  #: seconds after which an exchange is taken to hang


class Until(Struct, frozen=True):
    """Step of an exchange: wait until these bytes have been received, ``count`` times."""

    mark: bytes
    count: int = 1


class End(Struct, frozen=True):
    """Step of an exchange: close the sending side of the connection."""


Step = bytes | Until | End


class Row(Struct, frozen=True):
    """One exchange. Each of ``sent`` is a packet of its own."""

    name: str
    sent: bytes | tuple[Step, ...]
    answers: int | tuple[int, ...]
    seen: tuple[tuple[str, bytes | None], ...] = ()  #: requests and their bodies; None: the body was aborted
    closed: bool | None = None  #: whether the listener closes the connection; None: after errors only
    fields: tuple[tuple[bytes, bytes], ...] | None = None  #: of the first request, as the application sees them
    whole: bytes = b""  #: all answers, with the values of Date and X-Request-Id replaced by ``*``
    bodiless: tuple[int, ...] = ()  #: positions of answers to HEAD
    shared: bool = True
    cut: bool = True  #: False where the client sends more than one request although it asks for the close
    logs: bool = False  #: whether an error is logged

    @property
    def steps(self) -> tuple[Step, ...]:
        return (self.sent,) if isinstance(self.sent, bytes) else self.sent

    @property
    def statuses(self) -> tuple[int, ...]:
        return (self.answers,) if isinstance(self.answers, int) else self.answers

    @property
    def closes(self) -> bool:
        """Return whether the listener closes the connection without being asked for it by ``PROBE``."""
        if self.closed is not None:
            return self.closed
        return not self.statuses or self.statuses[-1] >= 400 or End() in self.steps

    @property
    def is_refused(self) -> bool:
        """Return whether the last answer is an error of the listener, not one of the application."""
        path = self.seen[-1][0].partition(" /")[2] if self.seen else ""
        return bool(self.statuses) and self.statuses[-1] >= 400 and path != str(self.statuses[-1])


#: Tests that need an engine run on the loop that engines use.
in_production = pytest.mark.asyncio(loop_factories=["uvloop"])


def get(*fields: bytes) -> bytes:
    """Return a GET request with further header lines."""
    return GET + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"42") -> bytes:
    """Return a POST request with further header lines. Its length or coding must be among them."""
    return POST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def get_of(size: int, *fields: bytes) -> bytes:
    """Return a GET request of ``size`` bytes."""
    return get(*fields, b"x: " + b"a" * (size - len(get(*fields, b"x: "))))


def answered(name: str, sent: bytes | tuple[Step, ...], *seen: tuple[str, bytes], **fields: Any) -> Row:
    """Return a row in which the application sees these requests, and answers them. It is shared if all listeners do."""
    return Row(name, sent, (OK,) * len(seen), seen, **{"shared": {*seen} <= {POSTED, GOT}, **fields})


def closing(name: str, sent: bytes, *seen: tuple[str, bytes], **fields: Any) -> Row:
    """Return a row in which ``seen`` is answered, the connection is closed, and nothing more is read."""
    return answered(name, sent, *seen, closed=True, cut=False, **fields)


def each(rows: Sequence[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


async def check(row: Row) -> None:
    """Exchange ``row`` with a scripted application. Fail if answers or requests differ from those of the row."""
    for size in CUTS if row.cut else CUTS[:1]:
        app = ScriptedApp()
        with problems() as logged:
            async with listen(app, "127.0.0.1", 0) as port:
                received = await exchange(port, row, size)
        context = f"in pieces of {size} bytes" if size else "as written"
        answers = _answers(row, received, size)
        assert _statuses(answers) == list(row.statuses), (context, received)
        # The application may have seen nothing of an aborted request that came in one packet.
        whole = [seen for seen in row.seen if seen[1] is not None]
        assert app.seen in (list(row.seen), whole), (context, received)
        assert bool(logged) == row.logs, (context, logged)
        if row.fields is not None:
            assert app.fields[0] == list(row.fields), context
        if row.whole:
            assert masked(received) == row.whole, context
        for answer in answers:
            _check_fields(answer)
        if row.is_refused and len(answers) - 1 not in row.bodiless:
            check_refusal(answers[-1])


async def exchange(port: int, row: Row, size: int, translated: Callable[[bytes], bytes] = lambda sent: sent) -> bytes:
    """Send all pieces of ``row``, and ``PROBE`` if the connection must still be open. Return all bytes received."""
    with anyio.fail_after(LIMIT):
        async with connect(port) as client:
            for step in row.steps:
                match step:
                    case Until(mark, count):
                        await client.until(mark, count)
                    case End():
                        client.end()
                    case _:
                        await _send(client, translated(step), size)
            if not row.closes:
                await client.send(translated(PROBE))
            return await client.rest()


async def _send(client: RawClient, data: bytes, size: int) -> None:
    for piece in pieces(data, size):
        await client.send(piece)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield ``data`` in pieces of ``size`` bytes, or of more if there were too many; as a whole if ``size`` is 0."""
    size = max(size, len(data) // MOST_PIECES) if size else len(data)
    return (data[start : start + size] for start in range(0, len(data), size or 1))


def _answers(row: Row, received: bytes, size: int) -> list[Answer]:
    """Return the answers to the requests of ``row``, without the answer to ``PROBE``."""
    answers = read_answers(received, bodiless=row.bodiless)
    if not row.closes:
        assert answers, f"{row.name}: no answer at all, in pieces of {size} bytes"
        last = answers.pop()
        assert last.status in (200, 202), last
        assert last.all(b"connection") == [b"close"], last
    return answers


def _statuses(answers: Collection[Answer]) -> list[int]:
    return [OK if answer.status == 202 else answer.status for answer in answers]


def _check_fields(answer: Answer) -> None:
    names = [name for name, _ in answer.fields]
    assert len(set(names)) == len(names), answer
    if answer.status < 200:
        assert (answer.fields, answer.body) == ([], b"")
        return
    [date] = answer.all(b"date")
    assert date.endswith(b" GMT"), date
    assert abs(parsedate_to_datetime(date.decode()) - datetime.now(UTC)) < timedelta(minutes=2)


def check_refusal(answer: Answer) -> None:
    """Fail unless ``answer`` is an error reply of the listener itself."""
    body = json.loads(answer.body)
    assert set(body) == {"error_code", "error_msg"}
    assert CODE.match(body["error_code"]), body
    assert body["error_msg"].strip(), body
    assert answer.all(b"content-type") == [b"application/json"], answer
    assert answer.all(b"connection") == [b"close"], answer
    [request_id] = answer.all(b"x-request-id")
    assert UUID.match(request_id), answer


def masked(received: bytes) -> bytes:
    """Return ``received`` with ``*`` for the values that differ each time."""
    return re.sub(rb"(?im)^(date|x-request-id): [^\r\n]+", rb"\1: *", received)


async def check_engine(
    rows: Sequence[Row],
    port: int,
    translated: Callable[[bytes], bytes],
    taken: Callable[[], Awaitable[Sequence[tuple[str, bytes]]]],
) -> None:
    """Exchange all shared rows with the API or a gateway at ``port``.

    ``translated`` replaces the targets in bytes that are sent. ``taken`` returns the requests with bodies that were
    accepted since the call before.
    """
    failures: list[str] = []
    for row in (row for row in rows if row.shared):
        for size in CUTS if row.cut else CUTS[:1]:
            async with no_problems():
                received = await exchange(port, row, size, translated)
            statuses = _statuses(_answers(row, received, size))
            bodies = await taken()
            if statuses != list(row.statuses) or list(bodies) != _posted(row):
                failures.append(f"{row.name} (pieces of {size} bytes): {statuses} {received!r:.200} {bodies!r:.100}")
    assert not failures, "\n".join(failures)


def _posted(row: Row) -> list[tuple[str, bytes]]:
    return [(request, body) for request, body in row.seen if body is not None and request == POSTED[0]]
