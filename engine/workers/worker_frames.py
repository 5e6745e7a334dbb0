"""Frames, answers and error bodies of the workers that are written in Python: of functions, and of bootstraps.

Standard library only, Python 3.9 syntax. ``engine/runtimes/protocol.py`` describes the frames; codes, messages and
error bodies are FunctionGraph's.
"""

import _thread
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

SETUP, INVOKE, STOP, NOTICE = 1, 2, 3, 4
CANCELLED, TIMEOUT, SOFT_TIMEOUT = 1, 2, 3  # reasons of notices
READY, DONE, LOG, PROGRESS = 1, 2, 3, 4
OK, ENTRY, USER, TOO_LARGE, BAD_RESULT = 0, 4001, 4002, 4004, 4007
INIT_RAISED, INIT_FAILED, NO_MEMORY, DISK_FULL = 4009, 4201, 4205, 4207
LOAD_TIMEOUT, INIT_TIMEOUT = 4010, 4211
PREFIX = {
    ENTRY: "function entry exception, error: ",
    USER: "function invocation exception, error: ",
    BAD_RESULT: "function result is invalid, error: ",
    INIT_RAISED: "function initialization exception, error: ",
    INIT_FAILED: "function initialization exception, error: ",
    LOAD_TIMEOUT: "Invoke function timeout: ",
    INIT_TIMEOUT: "function initialization exception, error: ",
    NO_MEMORY: "function memory exceeded, error: ",
    DISK_FULL: "function disk usage exceeded, error: ",
}
LONGEST_MESSAGE = 4096  # characters
KEYS = {"Access-Key": "access_key", "Secret-Key": "secret_key", "Token": "security_token"}  # headers of an agency
FACTS = ("X-Cff-Attempt", "X-Cff-Max-Attempts", "X-Cff-Trigger", "X-Cff-Parent", "X-Cff-Accepted-At", "X-Cff-Deadline")
NO_FACTS = "0 0  "  # of a run, as those at the end of ``alias`` in an INVOKE frame; of an initializer
LONGEST_DELAY = 1e9  # seconds; the engine has a limit of its own


LOCK = _thread.allocate_lock()


class Run:
    """Run whose calls of functions have numbers, by which the engine knows them in a repeated run."""

    _numbers: "dict[bytes, list[int]] | None" = None

    def _number(self, call: "dict[str, Any]", event: str = "", group: str = "") -> "Callable[[], object]":
        """Set ``n`` of a call without a key: how often this run has queued an equal one before, in its group.

        ``event`` is that of the call as JSON. Return a function that has the number used again, for a call that is
        refused.
        """
        if "key" in call or "n" in call:
            return lambda: None
        from hashlib import sha256  # slow to load, and few functions queue

        name, steps = str(call.get("function", "")), call.get("then")
        name = ":".join(name.split(":")[5:7]) if name.startswith("urn:") else name  # without a version
        then = json.dumps([(step["function"], step.get("event")) for step in steps]) if steps else ""
        digest = sha256(f"{name}:{group}:{call.get('require')}:{then}:{event}".encode()).digest()
        with LOCK:
            self._numbers = self._numbers or {}
            numbers = self._numbers.setdefault(digest, [0])  # the next one first
            taken = call["n"] = numbers.pop() if len(numbers) > 1 else numbers[0]
            numbers[0] = max(numbers[0], taken + 1)
        return lambda: numbers.append(taken)


class Invocation(Run):
    """Request that an INVOKE frame contains."""

    deadline = 0  # milliseconds since the epoch, if the bridge has set it

    def __init__(self, body: bytes) -> None:
        split = 6 + body[4]
        end = split + body[5]
        self.ticket, self.id = int.from_bytes(body[:4], "big"), body[6:split].decode()
        self.alias, _, rest = body[split:end].decode().partition(" ")
        self.traceparent, _, self.facts = rest.partition(" ")
        self.event = body[end:]

    def headers(self) -> "list[tuple[str, str]]":
        return run_headers(self.id, self.traceparent, self.facts, self.deadline)


def run_headers(request_id: str, traceparent: str, facts: str, deadline: int) -> "list[tuple[str, str]]":
    """Return what a server gets to know about a run, beside its request id, as headers."""
    headers = [("traceparent", traceparent)] if traceparent else []
    if facts:
        headers += zip(FACTS, (*facts.split(" "), utc(accepted_at(request_id)), utc(deadline)))
    return headers


def accepted_at(request_id: str) -> int:
    """Return the time at which a request was accepted, in milliseconds since the epoch. A UUID of version 7 has it."""
    return int(request_id[:8] + request_id[9:13], 16)


def utc(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"


def answer_frame(kind: int, ticket: int, code: int, memory: int, message: str, result: bytes) -> bytes:
    """Return the frame of an answer. ``memory`` is the peak in KiB."""
    text = message[:LONGEST_MESSAGE].encode("utf-8", "replace") if message else b""
    return (
        (15 + len(text) + len(result)).to_bytes(4, "big")
        + bytes((kind,))
        + ticket.to_bytes(4, "big")
        + code.to_bytes(2, "big")
        + memory.to_bytes(4, "big")
        + len(text).to_bytes(4, "big")
        + text
        + result
    )


def error_body(message: str, kind: str, trace: "Sequence[str]" = (), said: "dict[str, object] | None" = None) -> bytes:
    body = {"errorMessage": message, "errorType": kind, "stackTrace": list(trace), **(said or {})}
    return json.dumps(body, indent=4).encode()


def wishes(after: object, retryable: object, classes: object) -> "dict[str, object]":
    """Return the fields of an error body for what an error says about a retry: seconds until it, or False; its classes.

    The classes are a list of names, the error's own first.
    """
    fields = dict[str, object]()
    if isinstance(after, (int, float)) and not isinstance(after, bool) and 0 <= after <= LONGEST_DELAY:
        fields["retryAfter"] = float(after)
    if retryable is False:
        fields["retryable"] = False
    if isinstance(classes, list) and len(classes) > 1:
        fields["errorClasses"] = [str(name)[:256] for name in classes[:32]]
    return fields


def high_water(pid: "int | str") -> int:
    """Return the highest resident memory of a process in KiB, or 0 if it has exited. Reads /proc."""
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
        at = text.index(b"VmHWM:")
        return int(text[at + 6 : text.index(b"kB", at)])
    except (OSError, ValueError):
        return 0
