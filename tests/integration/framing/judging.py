"""Comparison of what the listener has read from a stream with what Node and the stream's author say.

The listener may read fewer requests than Node, never more and no other ones, and none that is ambiguous. It may reset
a connection only after it has announced to close it. Explained differences:

- A target in absolute form is compared without scheme and authority; without a path, it is ``/``. An empty query and
  a fragment are left out.
- Host is the authority of a target in absolute form.
- Node reads nothing after a request for an upgrade, and may wait for ever: it receives another name of the field. The
  fields of an upgrade may be missing.
- Node refuses a tab behind the digits of Content-Length, which is valid.
- Node refuses minor versions above 1.
- Node obeys ``Connection: close`` in trailers and ``Proxy-Connection: close``, and reads no further request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.integration.framing.peers import Fields, Read, Seen
from tests.integration.framing.streams import Stream

ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
UPGRADE_FIELDS = (b"upgrade", b"http2-settings", b"connection")
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n")
REFUSED_BY_NODE = re.compile(rb"content-length:[ \t]*\d+ *\t| HTTP/1\.[2-9]\r\n", re.IGNORECASE)
CLOSING_TRAILERS = (b"connection", b"proxy-connection")
#: Statuses of requests that the listener refuses itself.
REFUSALS = {400, 405, 417, 431, 501, 505}


class Wrong(Exception):
    """Violation of a rule by the listener, or of an assumption by Node."""


def judge(stream: Stream, here: Read, node: Read) -> None:
    """Raise Wrong if the listener has read the stream in another way than it should."""
    if not _closed_by_node(node.seen):
        _check_expected(stream, node.seen, "Node")
    _check_expected(stream, here.seen, "the listener")
    _compare(stream, here.seen, node.seen)
    for request in here.seen:
        _check_strict(request)
    _check_answers(stream, here)


def _check_expected(stream: Stream, seen: list[Seen], reader: str) -> None:
    whole = [read for read in seen if read.whole]
    if len(whole) < len(stream.expected) or (stream.complete and len(whole) > len(stream.expected)):
        raise Wrong(f"{reader} has read {len(whole)} whole requests, not {len(stream.expected)}")
    for read, request in zip(whole, stream.expected, strict=False):
        if (read.method, plain(read.target), read.body) != (request.method, plain(request.target), request.body):
            raise Wrong(f"{reader} has read {read}, not {request}")


def _compare(stream: Stream, here: list[Seen], node: list[Seen]) -> None:
    for number, request in enumerate(here):
        if number == len(node):
            if _closed_by_node(node) or REFUSED_BY_NODE.search(b"".join(stream.pieces)):
                return
            raise Wrong(f"Node has not read request {number}: {request}")
        other = node[number]
        if (request.method, plain(request.target)) != (other.method, plain(other.target)):
            raise Wrong(f"Node has read {other} in place of {request}")
        if request.whole and (request.body, True) != (other.body, other.whole):
            raise Wrong(f"Node has read another body or none, {other}, in place of {request}")
        if _fields(request, other) != _fields(other, other):
            raise Wrong(f"Node has read other fields, {other.fields}, in place of {request.fields}")


def _closed_by_node(seen: list[Seen]) -> bool:
    if not seen:
        return False
    trailers = {name for name, _ in seen[-1].trailers}
    return (b"proxy-connection", b"close") in seen[-1].fields or not trailers.isdisjoint(CLOSING_TRAILERS)


def _check_strict(seen: Seen) -> None:
    """Raise Wrong if other servers could read the request otherwise, even if Node reads it the same."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in seen.fields:
        values.setdefault(name, []).append(value)
    lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
    if (
        len(values.get(b"host", [])) > 1
        or len(lengths) + len(codings) > 1
        or not all(length.isdigit() for length in lengths)
        or not all(coding.lower() == b"chunked" for coding in codings)
    ):
        raise Wrong(f"the listener has read an ambiguous request, {seen}")


def plain(target: bytes) -> bytes:
    """Return path and query of a target in any form."""
    path, _, query = ABSOLUTE.sub(b"", target.partition(b"#")[0], count=1).partition(b"?")
    return (path or b"/") + (b"?" + query if query else b"")


def _fields(seen: Seen, node: Seen) -> Fields:
    """Return the fields that must be the same for both peers, as one of them has read them."""
    left_out = [b"host"] if ABSOLUTE.match(node.target) else []
    if any(name == b"upgrade" for name, _ in node.fields):
        left_out += UPGRADE_FIELDS
    return [(name, value) for name, value in seen.fields if name not in left_out]


def _check_answers(stream: Stream, here: Read) -> None:
    """Raise Wrong unless each whole request has its answer, and at most one refusal follows as the last answer."""
    whole = [number for number, request in enumerate(here.seen) if request.whole]
    answers = list(_answers(stream, here))
    answered = [number for status, number in answers if status == 200]
    refused = [status for status, _ in answers if status != 200]
    if answered != whole:
        raise Wrong(f"requests {whole} are whole, {answered} are answered")
    if refused and (len(refused) > 1 or answers[-1][0] == 200 or not REFUSALS.issuperset(refused)):
        raise Wrong(f"the statuses of the answers are {[status for status, _ in answers]}")
    if here.reset and (refused or b"\r\nConnection: close\r\n" not in here.answers):
        raise Wrong("the listener has reset the connection")


def _answers(stream: Stream, here: Read) -> Iterator[tuple[int, int]]:
    """Yield status and number of each final answer. Refusals have the number -1."""
    rest = here.answers
    while rest:
        match = ANSWER.match(rest)
        if match is None:
            raise Wrong(f"the answers go on with {rest[:200]!r}")
        status, fields = int(match[1]), match[2].lower()
        rest = rest[match.end() :]
        if status == 100:
            continue
        number = re.search(rb"^x-number: (\d+)\r", fields, re.MULTILINE)
        length = re.search(rb"^content-length: (\d+)\r", fields, re.MULTILINE)
        if length is None or (status == 200) != (number is not None):
            raise Wrong(f"an answer has the fields {fields!r}")
        at = int(number[1]) if number else -1
        if here.seen[at].method == b"HEAD" if number else not rest and b"HEAD " in b"".join(stream.pieces):
            length = None
        if length is not None:
            if len(rest) < int(length[1]):
                raise Wrong(f"an answer of {int(length[1])} bytes is cut off after {len(rest)}")
            rest = rest[int(length[1]) :]
        yield status, at
