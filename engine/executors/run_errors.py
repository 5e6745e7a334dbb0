"""Errors of failed runs: the last lines of their logs, and one line a minute for each cause in the engine's log.

The log of a synchronous call is not stored. Its end joins the lines of the function that belong to no stored
invocation. They are in memory for up to ``SPAN`` seconds, then in a file.
"""

from __future__ import annotations

import asyncio

import structlog

from engine.executors.call import Ended
from engine.executors.logs import LogBuffer, LogRecorder, Written
from engine.logs.causes import SPAN, Causes
from engine.logs.lines import TAIL, last
from engine.model import Code, Function, Invocation, Mode
from engine.model.retry_rules import read_error
from engine.runtimes.protocol import Answer

FUNCTIONS = 100  #: whose lines are in memory
BODY = 256 << 10  #: bytes of a description of an error that is read
LONGEST = 32 << 10  #: characters of an error in a log
MESSAGE = 4096  #: characters of its message
BRIEF = 200  #: characters of its message in the engine's log

log = structlog.get_logger("functiond.runs")


class RunErrors:
    """Writer of the errors of failed runs. ``flush`` must be called before the recorder is closed."""

    def __init__(self, recorder: LogRecorder) -> None:
        self._recorder = recorder
        self._causes = Causes()  #: functions, codes and types of errors
        self._kept: dict[int, LogBuffer] = {}  #: lines of synchronous calls, by function
        self._timer: asyncio.TimerHandle | None = None  #: calls ``flush``

    def note(self, function: Function, invocation: Invocation, instance: str, ended: Ended) -> Ended:
        """Write the error of a failed run to its log. Return the end of the run, with the log that is to be stored."""
        answer, written = ended.answer, ended.written
        error = read_error(answer.message, answer.result[:BODY])
        self._log(function, invocation, answer, error.kind[:BRIEF])
        head = f"request {invocation.request_id} failed with {answer.code:d}: {answer.message[:MESSAGE]}"
        frames = [line.rstrip() if line.startswith(" ") else f"    {line.rstrip()}" for line in error.trace]
        lines = self._recorder.end(function, invocation, instance, "\n".join([head, *frames])[:LONGEST])
        if invocation.mode is Mode.ASYNC:
            return ended._replace(written=Written(written.kept + lines, written.dropped))
        self.keep(function.function_id, last(written.kept, TAIL) + lines)
        return ended

    def lines(self, function_id: int) -> bytes:
        """Return the lines of a function that are in no file yet."""
        kept = self._kept.get(function_id)
        return b"" if kept is None else kept.written().whole()

    def flush(self) -> None:
        """Write all lines to files, in a thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept, self._kept = self._kept, {}
        for function_id, lines in kept.items():
            self._recorder.keep(function_id, lines)

    def _log(self, function: Function, invocation: Invocation, answer: Answer, kind: str) -> None:
        if answer.code == Code.CANCELLED or not self._causes.note((function.function_id, answer.code, kind)):
            return
        log.info(
            "run failed",
            request_id=invocation.request_id,
            function=function.name,
            mode=invocation.mode.value,
            attempt=invocation.attempt,
            code=int(answer.code),
            problem=answer.message[:BRIEF],
        )

    def keep(self, function_id: int, lines: bytes) -> None:
        """Add the end of the log of a synchronous call to the lines of its function."""
        if function_id not in self._kept:
            if len(self._kept) >= FUNCTIONS:
                self.flush()
            self._kept[function_id] = self._recorder.begin(None)
        self._timer = self._timer or asyncio.get_running_loop().call_later(SPAN, self.flush)
        self._kept[function_id].add(lines)
