"""From the way an attempt ended to its Outcome: the table of codes and messages in one place."""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import NamedTuple

from engine.errors import InvalidField, NoInterpreter
from engine.executors.log_buffer import Written
from engine.executors.process import Call, End, Instance
from engine.model import Code, Function
from engine.runtimes.protocol import DONE, Answer

#: The host has no room or no time now; anything else that keeps a process from starting needs a change by someone.
_EXHAUSTED = frozenset(
    {
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EADDRINUSE,
        errno.ETIMEDOUT,
    }
)

#: A failed start for which new instances are tried (spec triggers_runtime 4.1).
START_FAILURES = frozenset({Code.INITIALIZER_ERROR, Code.INIT_FAILED, Code.INIT_TIMEOUT})

INVOCATION = "function invocation exception, error: "
INITIALIZATION = "function initialization exception, error: "


class Ended(NamedTuple):
    """What an attempt ended with."""

    answer: Answer
    written: Written


class Fault(NamedTuple):
    """Why there is no answer, as an Outcome shows it."""

    code: Code
    message: str

    @property
    def answer(self) -> Answer:
        """As if the instance had said so itself."""
        body = {"errorMessage": self.message, "errorType": self.code.name, "stackTrace": []}
        return Answer(DONE, self.code, 0, self.message, json.dumps(body, indent=4).encode())


CANCELLED = Fault(Code.CANCELLED, "the invocation was cancelled")
#: A request that is there when its instance ends so many times is held to be the reason.
BESIDE_TIMES = 3
_BESIDE = {
    End.TIMEOUT: "another request that it served at the time ran too long",
    End.GARBLED: "one of the requests that it served at the time wrote to the engine's socket",
    End.ABANDONED: "another request that it served at the time was given up",
}


def call_fault(call: Call, function: Function) -> Fault:
    """The instance ended while it ran the handler, and nothing else or because of it."""
    instance = call.instance
    if instance.end is End.TIMEOUT:
        return Fault(Code.TIMEOUT, f"Invoke function timeout: it ran longer than the {function.timeout} s allowed")
    return _common_fault(instance) or Fault(Code.USER_EXCEPTION, INVOCATION + _death(instance))


def beside_fault(call: Call, times: int) -> Fault:
    """The instance ended while it served several, and not certainly because of this one.

    To cancel one cancels all (spec functiongraph_api, 2.5). Any other end uses up no retry, but for one that was
    there ``BESIDE_TIMES`` times: if all were to go on for ever, the one that is to blame would.
    """
    instance = call.instance
    if instance.end is End.CANCELLED:
        return Fault(Code.CANCELLED, "function invocation canceled: so was another that its instance served")
    if instance.out_of_memory:
        reason = f"its requests together used more than its {instance.memory} MB of memory"
    else:
        reason = _BESIDE.get(instance.end or End.DIED) or _death(instance)
    text = f"the instance ended before its answer: {reason}"
    if times < BESIDE_TIMES:
        return Fault(Code.ENGINE, f"{text}; it will be tried again")
    return Fault(Code.USER_EXCEPTION, f"{INVOCATION}{text}, and this is the {times}th time for this request")


def start_fault(instance: Instance, function: Function) -> Fault:
    """The instance ended before it was ready: the initializer, or loading the code, is to blame."""
    if instance.end is End.TIMEOUT and function.initializer_handler:
        limit = function.initializer_timeout
        return Fault(Code.INIT_TIMEOUT, f"{INITIALIZATION}it ran longer than the {limit} s allowed")
    if instance.end is End.TIMEOUT:
        return Fault(Code.TIMEOUT, f"Invoke function timeout: loading the code took longer than {function.timeout} s")
    return _common_fault(instance) or Fault(Code.INIT_FAILED, INITIALIZATION + _death(instance))


def launch_fault(error: OSError, command: str) -> Fault:
    """There is no process to begin with. None of these is the function's fault, so none uses up a retry."""
    reason = error.strerror or str(error)
    if error.errno in _EXHAUSTED:
        return Fault(Code.OVERLOAD, f"no new instance can start now: {reason}; it will be tried again")
    if error.filename == command or os.path.basename(error.filename or "") == "bwrap":
        advice = "it ran before: install it again, or restart the engine to have another one looked for"
    else:
        advice = "see that the data directory is whole and belongs to the engine, then deploy the function again"
    return Fault(Code.ENGINE, f"cannot start an instance: {reason} ({error.filename or command}); {advice}")


def runtime_fault(problem: InvalidField) -> Fault:
    """Nothing here runs it. If that is for want of an interpreter, the function is not to blame."""
    if isinstance(problem, NoInterpreter):
        return Fault(Code.ENGINE, f"cannot start an instance: {problem}")
    return Fault(Code.ENTRY_NOT_FOUND, f"function entry exception, error: {problem}")


def _common_fault(instance: Instance) -> Fault | None:
    if instance.end is End.CANCELLED:
        return CANCELLED
    if instance.end is End.GARBLED:
        return Fault(
            Code.USER_EXCEPTION, INVOCATION + "the code wrote to the engine's socket, which it must leave alone"
        )
    if instance.out_of_memory or (instance.heap_exhausted and (instance.exit_status or 0) < 0):
        return Fault(Code.OUT_OF_MEMORY, f"the function used more than its {instance.memory} MB of memory")
    return None


def _death(instance: Instance) -> str:
    status = instance.exit_status
    if status is None:
        return "the process of the instance ended"
    if status >= 0:
        return f"the process exited with status {status} before it answered"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    core = " (a fault in native code)" if -status in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL) else ""
    return f"the process was killed by {name}{core} before it answered"
