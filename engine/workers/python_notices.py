"""Notices of the engine that a running request must end, or has reached its soft timeout.

An instance that serves one request at a time reads no frames while user code runs in its main thread. The kernel then
sends the process SIGURG when a frame arrives, and the signal handler reads the frame in the main thread. Without the
handler, SIGURG has no effect. The kernel sends no signal while the main thread waits for a frame. Standard library
only, Python 3.9 syntax.
"""

import fcntl
import os
import signal

from python_failures import warn
from python_wire import ITSELF, Wire
from worker_frames import CANCELLED, NOTICE, SOFT_TIMEOUT, TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from types import FrameType

    from worker_types import Interrupted, Runner, Told

FIONREAD, F_SETSIG = 0x541B, 10
REASONS = {CANCELLED: "cancelled", TIMEOUT: "timeout", SOFT_TIMEOUT: "soft_timeout"}
TEXTS = {"cancelled": "the invocation was cancelled", "timeout": "the invocation ran longer than its timeout"}


class Notices:
    """Receiver of notices in an instance that serves one request at a time."""

    def __init__(self, wire: Wire, call: "Runner") -> None:
        self.wire, self.call = wire, call
        self.watching = self.reading = self.missed = False

    def watch(self) -> None:
        """Have the kernel announce frames by SIGURG. Call in the main thread."""
        self.watching = True
        signal.signal(signal.SIGURG, self.on_signal)
        fcntl.fcntl(self.wire.fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self.wire.fd, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(self.wire.fd, fcntl.F_SETFL, fcntl.fcntl(self.wire.fd, fcntl.F_GETFL) | os.O_ASYNC)

    def on_signal(self, number: int, frame: "FrameType | None") -> None:
        if os.getpid() != self.wire.pid:
            return
        request = self.wire.current()
        if request is ITSELF:
            self.missed = True  # the frame of a request may have been read, but the request has not begun
        else:
            self.receive(request)  # type: ignore[arg-type]  # a request if it is not the instance itself

    def receive(self, request: "Interrupted") -> None:
        """Read the notices that have arrived, and tell the running request.

        ``missed`` is set if a signal arrives before the context exists, or while a frame is being read.
        """
        if request.context is None or self.reading:
            self.missed = True
            return
        while True:
            self.missed = False
            reason = self.next_reason(request)
            if reason:
                self.tell(request, reason)
            elif not self.missed:
                return

    def next_reason(self, request: "Interrupted") -> str:
        """Return the reason in the next notice about the request, or an empty text if no notice has arrived."""
        self.reading = True
        try:
            while self.wire.has_frame() or any(fcntl.ioctl(self.wire.fd, FIONREAD, bytes(4))):
                kind, body = self.wire.read()
                if kind != NOTICE:
                    break
                self.wire.consume()
                ticket, reason = parse(body)
                if ticket == request.ticket:
                    return reason
            return ""
        finally:
            self.reading = False

    def tell(self, request: "Interrupted", reason: str) -> None:
        """Run the callbacks of the request. If it must end, send SIGTERM to the process group.

        If the handler heeds neither the notice nor the signal, interrupt it: a plain handler by SystemExit, an async
        handler by the cancellation of its task.
        """
        context, task, ends = request.context, self.call.task, reason in TEXTS
        assert context is not None  # as ``receive`` has checked
        context._note(reason)
        own = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # user code handles the signal
        try:
            if task is not None:  # callbacks of an async handler use its loop, which may be waiting for events
                task.get_loop().call_soon_threadsafe(tell_task, task, context, reason, own)
            else:
                context._tell(reason)
        finally:
            if ends:
                terminate_group(own)
        if ends and task is None and not own and not context._heeds:
            raise SystemExit(TEXTS[reason])


def parse(body: bytes) -> "tuple[int, str]":
    """Return the ticket and the reason in the body of a NOTICE frame."""
    return int.from_bytes(body[:4], "big"), REASONS.get(body[4], "")


def terminate_group(own: bool) -> None:
    """Send SIGTERM to the processes that user code has started, as far as they are in the instance's process group.

    The signal reaches this process, too. It has no effect here unless user code handles it (``own``).
    """
    if os.getpgrp() != os.getpid():
        return
    if not own:
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # not SIG_IGN, which later children would inherit
    os.killpg(os.getpid(), signal.SIGTERM)


def tell_task(task: "asyncio.Task[object]", context: "Told", reason: str, own: bool) -> None:
    """Run the callbacks of an async handler on its loop. Cancel its task if it must end and does not heed that."""
    tell_elsewhere(context, reason)
    if reason in TEXTS and not own and not context._heeds:
        task.cancel()


def tell_elsewhere(context: "Told", reason: str) -> None:
    """Run the callbacks of a request. Errors are only logged, because they cannot interrupt the handler."""
    try:
        context._tell(reason)
    except BaseException as error:
        warn("callback for the end of a request", error)
