"""Answers to requests whose instance sent none, or for which no instance could be started."""

from __future__ import annotations

import errno
import json
import os
import signal

from engine.errors import InvalidField, NoInterpreter
from engine.executors.call import End
from engine.executors.instance import Instance
from engine.model import Code, Function
from engine.runtimes.catalog import Family, find_runtime
from engine.runtimes.protocol import DONE, Answer

#: Errors of a host that lacks a resource for a time. After other errors of a start the operator must change something.
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

#: Codes of failed starts that are repeated on a new instance.
START_FAILURES = frozenset({Code.INITIALIZER_ERROR, Code.INIT_FAILED, Code.INIT_TIMEOUT})

INVOCATION = "function invocation exception, error: "
INITIALIZATION = "function initialization exception, error: "


def fault(code: Code, message: str) -> Answer:
    """Return the answer in place of a missing one, in the form in which an instance reports a failure."""
    body = {"errorMessage": message, "errorType": code.name, "stackTrace": []}
    return Answer(DONE, code, 0, message, json.dumps(body, indent=4).encode())


CANCELLED = fault(Code.CANCELLED, "the invocation was cancelled")
#: Number of instances that may end during a request until the request is considered the cause.
MAX_COLLATERAL = 3
_COLLATERAL_REASONS = {
    End.TIMEOUT: "another request that it served at the time ran too long",
    End.GARBLED: "one of the requests that it served at the time wrote to the engine's socket",
    End.ABANDONED: "another request that it served at the time was abandoned",
}


def interrupted_fault(end: End, function: Function) -> Answer:
    """Return the answer for a request whose handler was told to end, whether it has answered since or not."""
    if end is End.CANCELLED:
        return CANCELLED
    return fault(Code.TIMEOUT, f"Invoke function timeout: it ran longer than the {function.timeout} s allowed")


def call_fault(instance: Instance) -> Answer:
    """Return the answer for a request that got none.

    The request was the only one of its instance, or made the instance end.
    """
    return _common_fault(instance) or fault(Code.USER_EXCEPTION, INVOCATION + _exit_reason(instance))


def collateral_fault(instance: Instance, times: int) -> Answer:
    """Return the answer for a request whose instance ended while it served several requests.

    Another request may be the cause. ``times`` is the number of times that this has happened to the request, including
    now. The first ``MAX_COLLATERAL`` - 1 times use up no retry. Without this maximum, a request that itself makes its
    instances end would be retried forever. Cancelling one request cancels all requests of its instance (FunctionGraph
    API: CancelAsyncInvocation).
    """
    if instance.end is End.CANCELLED:
        return fault(Code.CANCELLED, "function invocation canceled: so was another that its instance served")
    if instance.out_of_memory:
        reason = f"its requests together used more than its {instance.memory} MB of memory"
    else:
        reason = _COLLATERAL_REASONS.get(instance.end or End.EXITED) or _exit_reason(instance)
    text = f"the instance ended before its answer: {reason}"
    if times < MAX_COLLATERAL:
        return fault(Code.ENGINE, f"{text}; it will be tried again")
    return fault(Code.USER_EXCEPTION, f"{INVOCATION}{text}, and this is the {times}th time for this request")


def start_fault(instance: Instance, function: Function) -> Answer:
    """Return the answer for an instance that ended in its initializer or while it loaded the user code."""
    if instance.end is End.TIMEOUT and function.initializer_handler:
        limit = function.initializer_timeout
        return fault(Code.INIT_TIMEOUT, f"{INITIALIZATION}it ran longer than the {limit} s allowed")
    if instance.end is End.TIMEOUT:
        runtime, advice = find_runtime(function.runtime), ""
        if runtime and runtime.family in (Family.CUSTOM, Family.LAMBDA):
            advice = ": bootstrap has requested no event; a server on port 8000 needs the runtime http"
        text = f"Invoke function timeout: loading the code took longer than {function.timeout} s"
        return fault(Code.TIMEOUT, text + advice)
    return _common_fault(instance) or fault(Code.INIT_FAILED, f"{INITIALIZATION}{_exit_reason(instance)}; see the log")


def launch_fault(error: OSError, command: str) -> Answer:
    """Return the answer for an instance whose process could not be started.

    The function is not the cause, so the failure uses up no retry.
    """
    reason = error.strerror or str(error)
    if error.errno in _EXHAUSTED:
        return fault(Code.OVERLOAD, f"no new instance can start now: {reason}; it will be tried again")
    if error.filename == command or os.path.basename(error.filename or "") == "bwrap":
        advice = "it ran before: install it again, or restart the engine to search for another one"
    else:
        advice = "check that the data directory is complete and the engine may use it, then deploy the function again"
    return fault(Code.ENGINE, f"cannot start an instance: {reason} ({error.filename or command}); {advice}")


def runtime_fault(problem: InvalidField) -> Answer:
    """Return the answer for a function whose runtime cannot run on this machine.

    The function is not the cause of a missing interpreter, so this failure uses up no retry.
    """
    if isinstance(problem, NoInterpreter):
        return fault(Code.ENGINE, f"cannot start an instance: {problem}")
    return fault(Code.ENTRY_NOT_FOUND, f"function entry exception, error: {problem}")


def _common_fault(instance: Instance) -> Answer | None:
    if instance.end is End.CANCELLED:
        return CANCELLED
    if instance.end is End.NODE_LOST:
        return fault(Code.ENGINE, f"node {instance.node} was lost ({instance.lost}) before the invocation ended")
    if instance.end is End.GARBLED:
        return fault(
            Code.USER_EXCEPTION, INVOCATION + "the code wrote to the engine's socket, which it must leave alone"
        )
    if instance.out_of_memory or (instance.heap_exhausted and (instance.exit_status or 0) < 0):
        return fault(Code.OUT_OF_MEMORY, f"the function used more than its {instance.memory} MB of memory")
    return None


def _exit_reason(instance: Instance) -> str:
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
