"""``functiond invoke --async --batch``: invocations for the lines of a file, sent in batches."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO

import msgspec
from functiond.steps import Reply
from msgspec import Raw, Struct

from engine.cli.invoke_options import AsyncOptions
from engine.cli.output import FAILED, print_json, write
from engine.deploy.client import ApiError, Client, NotRunning, checked, path_of
from engine.deploy.progress import status_line
from engine.errors import UsageError

EVENTS, BYTES = 1_000, 6 << 20  #: limits of a batch
FRAME = len('{"events":[]}')
PAUSE = 2.0  #: seconds before the next try, if the reply names none
TRIES = 30  #: tries in a row that get no reply
RETRIED = (429, 503)


class _Line(Struct, frozen=True, kw_only=True):
    number: int  #: in the file, from 1
    entry: bytes  #: event with its options, as an entry of a batch


class _Refusal(Struct, frozen=True, kw_only=True):
    error_code: str
    error_msg: str


class BatchSender:
    """Sender of the lines of one file. ``json``: print the results as JSON lines, otherwise request ids.

    Each line gets a key when it is read, and keeps it when it is sent again. A line is therefore accepted only once.
    """

    def __init__(self, client: Client, name: str, options: AsyncOptions, *, json: bool) -> None:
        self._client, self._path, self._json = client, path_of(name, "/invocations-async/batch"), json
        self._key = options.idempotency_key or secrets.token_hex(16)
        given = {"priority": options.priority, "delay": options.delay, "ordering_key": options.ordering_key}
        self._options = {field: value for field, value in given.items() if value is not None}
        self._reached = False
        self.accepted = self.refused = 0

    def send(self, file: BinaryIO) -> Iterator[int]:
        """Send all lines. Yield the number of lines that have been accepted or refused, after each batch."""
        for batch in _batches(self._lines(file)):
            results: dict[int, Any] = {}
            waiting: Sequence[_Line] = batch
            while waiting:
                waiting = self._exchange(waiting, results)
            for line in batch:
                self._show(line.number, results[line.number])
            yield self.accepted + self.refused

    def _lines(self, file: BinaryIO) -> Iterator[_Line]:
        for number, text in enumerate(file, 1):
            event = text.strip()
            if not event:
                continue
            try:
                event.decode()
                msgspec.json.decode(event, type=Raw)
            except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
                self._show(number, _Refusal(error_code="", error_msg=f"not JSON: {error}"))
                continue
            entry = msgspec.json.encode({"key": f"{self._key}-{number}", **self._options, "event": Raw(event)})
            if FRAME + len(entry) > BYTES:
                self._show(number, _Refusal(error_code="", error_msg=f"larger than a batch of {BYTES} bytes"))
                continue
            yield _Line(number=number, entry=entry)

    def _exchange(self, lines: Sequence[_Line], results: dict[int, Any]) -> Sequence[_Line]:
        """Send lines once and store their results. Wait and return those that must be sent again."""
        answer = self._answer(b'{"events":[%b]}' % b",".join(line.entry for line in lines))
        body = _json(answer)
        if "results" not in body:
            if answer.status not in RETRIED:
                checked(answer)
                raise ApiError(answer.status, "HTTP", "the reply has no results")
            self._wait(answer, body.get("error_msg", ""))
            return lines
        again = []
        for line, result in zip(lines, body["results"], strict=True):
            if result.get("error_code") == "FSS.0429":
                again.append((line, result["error_msg"]))
            elif "request_id" in result:
                results[line.number] = result["request_id"]
            else:
                results[line.number] = msgspec.convert(result, _Refusal)
        if again:
            self._wait(answer, again[0][1])
        return [line for line, _ in again]

    def _answer(self, body: bytes) -> Reply:
        """Return the reply to a batch. After the first reply, wait for an engine that restarts."""
        for _ in range(TRIES):
            try:
                answer = self._client.exchange("POST", self._path, body)
            except NotRunning as error:
                if not self._reached:
                    raise
                failure = error
                sleep(PAUSE)
            else:
                self._reached = True
                return answer
        raise failure

    def _wait(self, answer: Reply, reason: str) -> None:
        seconds = answer.headers.get("retry-after", "")
        wait = float(seconds) if seconds.isdigit() else PAUSE
        write(f"functiond: {reason}; next try in {wait:g} s", errors=True)
        sleep(wait)

    def _show(self, number: int, result: str | _Refusal) -> None:
        if isinstance(result, str):
            self.accepted += 1
            print_json({"line": number, "request_id": result}, indent=None) if self._json else write(result)
            return
        self.refused += 1
        if self._json:
            print_json({"line": number, **msgspec.to_builtins(result)}, indent=None)
        else:
            write(f"functiond: line {number}: {f'{result.error_code} {result.error_msg}'.strip()}", errors=True)


def send_batch(client: Client, name: str, file: Path, options: AsyncOptions, *, json: bool) -> int:
    """Send each line of a file, or of standard input for ``-``, as an event. Print their request ids."""
    sender = BatchSender(client, name, options, json=json)
    # On a terminal, the request ids themselves show the progress.
    with _opened(file) as lines, status_line("sent", quiet=json or sys.stdout.isatty()) as show:
        for count in sender.send(lines):
            show(f"{count:,}")
    if not json:
        write(f"functiond: {sender.accepted:,} accepted, {sender.refused:,} refused", errors=True)
    return FAILED if sender.refused else 0


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if file == Path("-"):
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    with opened:
        yield opened


def _batches(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Yield the lines in batches within the limits."""
    batch: list[_Line] = []
    size = FRAME
    for line in lines:
        if len(batch) == EVENTS or size + len(line.entry) > BYTES:
            yield batch
            batch, size = [], FRAME
        batch.append(line)
        size += len(line.entry) + 1
    if batch:
        yield batch


def _json(answer: Reply) -> dict[str, Any]:
    try:
        body = answer.json
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
