"""``functiond invoke --async --batch``: invocations for the lines of a file, sent in batches."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import sleep
from typing import BinaryIO

import msgspec
from functiond.events import BATCH_BYTES, FRAME, Item, batches
from functiond.operations import ItemResult
from functiond.steps import Reply, error_of, retry_after
from msgspec import Raw, Struct
from msgspec.structs import replace

from engine.cli.invoke_options import AsyncOptions
from engine.cli.output import FAILED, print_json, write
from engine.deploy.client import ApiError, Client, NotRunning, checked, path_of
from engine.deploy.progress import status_line
from engine.errors import UsageError

PAUSE = 2.0  #: seconds before the next try, if the reply names none
TRIES = 30  #: tries in a row that get no reply
RETRIED = (429, 503)
FULL = "FSS.0429"  #: error of an event without room


class _Results(Struct):
    results: list[ItemResult]


class BatchSender:
    """Sender of the lines of one file. ``json``: print the results as JSON lines, otherwise request ids.

    Each line gets a key when it is read, and keeps it when it is sent again. A line is therefore accepted only once.
    """

    def __init__(self, client: Client, name: str, options: AsyncOptions, *, json: bool) -> None:
        self._client, self._path, self._json = client, path_of(name, "/invocations-async/batch"), json
        self._key = options.idempotency_key or secrets.token_hex(16)
        self._event = options.event
        self._reached = False
        self.accepted = self.refused = 0

    def send(self, file: BinaryIO) -> Iterator[int]:
        """Send all lines. Yield the number of lines that have been accepted or refused, after each batch."""
        for batch in batches(self._lines(file)):
            results: dict[int, ItemResult] = {}
            waiting = batch
            while waiting:
                waiting = self._exchange(waiting, results)
            for line in batch:
                self._show(line.position, results[line.position])
            yield self.accepted + self.refused

    def _lines(self, file: BinaryIO) -> Iterator[Item]:
        for number, text in enumerate(file, 1):
            event = text.strip()
            if not event:
                continue
            try:
                event.decode()
                msgspec.json.decode(event, type=Raw)
            except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
                self._show(number, ItemResult(error_msg=f"not JSON: {error}"))
                continue
            line = Item(number, replace(self._event, key=f"{self._key}-{number}", event=Raw(event)).item())
            if FRAME + len(line.body) > BATCH_BYTES:
                self._show(number, ItemResult(error_msg=f"larger than a batch of {BATCH_BYTES} bytes"))
                continue
            yield line

    def _exchange(self, lines: list[Item], results: dict[int, ItemResult]) -> list[Item]:
        """Send lines once and store their results. Wait and return those that must be sent again."""
        answer = self._answer(b'{"events":[%b]}' % b",".join(line.body for line in lines))
        try:
            replied = msgspec.json.decode(answer.body, type=_Results).results
        except msgspec.DecodeError:
            if answer.status not in RETRIED:
                checked(answer)
                raise ApiError(answer.status, "HTTP", "the reply has no results") from None
            self._wait(answer, error_of(answer).message)
            return lines
        results.update((line.position, result) for line, result in zip(lines, replied, strict=True))
        again = [line for line in lines if results[line.position].error_code == FULL]
        if again:
            self._wait(answer, results[again[0].position].error_msg)
        return again

    def _answer(self, body: bytes) -> Reply:
        """Return the reply to a batch. After the first reply, wait for an engine that restarts."""
        for _ in range(TRIES):
            try:
                answer = self._client.send("POST", self._path, body, check=False)
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
        asked = retry_after(answer)
        wait = PAUSE if asked is None else asked
        write(f"functiond: {reason}; next try in {wait:g} s", errors=True)
        sleep(wait)

    def _show(self, number: int, result: ItemResult) -> None:
        if result.request_id:
            self.accepted += 1
            shown = {"line": number, "request_id": result.request_id}
            print_json(shown, indent=None) if self._json else write(result.request_id)
            return
        self.refused += 1
        if self._json:
            refusal = {"error_code": result.error_code, "error_msg": result.error_msg}
            print_json({"line": number, **refusal}, indent=None)
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


def _opened(file: Path) -> AbstractContextManager[BinaryIO]:
    if file == Path("-"):
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
