"""Instance of a Python function: serves one request after another until its socket closes.

Run as ``python -I python_worker.py <descriptor>``, or by ``run`` in a forked process. Standard library only, Python
3.9 syntax, no import of the engine. Modules imported here are loaded for user code, too, and lengthen each cold
start. ``engine/runtimes/protocol.py`` describes the frames. Output of user code is sent as frames, too; the worker
itself writes nothing to the descriptors of stdout and stderr.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from python_failures import Failure, failure, warn
from python_instance import Instance, Request
from python_output import flush, redirect
from python_wire import ITSELF, REQUEST, Wire
from worker_frames import INVOKE, NOTICE, OK, READY, SETUP, STOP, USER

del sys.path[0]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import NoReturn

    from worker_types import Setup

HERE = os.path.dirname(os.path.abspath(__file__))


def serve(wire: Wire, instance: Instance) -> None:
    """Serve one request at a time in the main thread, without an event loop, until the socket closes."""
    while True:
        try:
            serve_and_recover(wire, instance)
            return
        except BaseException as error:  # a signal handler raised again, while the first error was reported
            recover(wire, error)


def serve_and_recover(wire: Wire, instance: Instance) -> None:
    while True:
        try:
            serve_requests(wire, instance)
            return
        except BaseException as error:
            recover(wire, error)


def serve_requests(wire: Wire, instance: Instance) -> None:
    """Serve requests until the socket closes or a STOP frame arrives.

    The loop has a function of its own, because a signal handler may raise between two iterations, where no ``try``
    inside the loop catches the error. The caller catches it.
    """
    while serve_one(wire, instance):
        pass


def serve_one(wire: Wire, instance: Instance) -> bool:
    """Handle one frame from the engine. Return whether another frame may follow."""
    kind, body = wire.read()
    if kind == INVOKE:
        request = Request(body)
        wire.begin(request)
        request.run(instance)
        request.finish(wire)
        return True
    if kind == NOTICE:  # for a request that has just been answered
        wire.consume()
        return True
    if kind == STOP:
        instance.stop()
    return False


def recover(wire: Wire, error: BaseException) -> None:
    """Report an error that a signal handler of user code has raised, and continue to serve requests."""
    request = wire.current()
    if isinstance(request, Request):
        request.fail(failure(USER, error))
        request.finish(wire)
    else:
        warn("between requests", error)


def start(wire: Wire, own: "Sequence[str]") -> None:
    """Read the SETUP frame, load the function, report success or failure to the engine, and serve requests.

    After a failure, no requests are served. ``own`` is as in ``run``.
    """
    kind, body = wire.read()
    if kind != SETUP:
        return
    wire.consume()
    setup: Setup = json.loads(body)
    concurrency = setup.get("concurrency", 1)
    if concurrency > 1:
        shared = load_concurrency()
        wire = shared.SharedWire(wire.fd)
    redirect(wire)
    hide_own_modules(own)
    sys.path[:0] = [setup["code"], *setup.get("layers", [])]
    sys.path.append(os.path.join(HERE, "client"))
    sys.argv[:] = [setup["code"]]
    instance = Instance.served = Instance(setup, wire)
    REQUEST.set(ITSELF)
    try:
        answer: tuple[int, str, bytes] = (OK, "", instance.prepare())
    except Failure as problem:
        answer = problem.code, problem.text, problem.result
    flush()
    wire.answer(READY, ITSELF, *answer)
    if answer[0] != OK:
        return
    if concurrency > 1:
        shared.serve(wire, instance, concurrency)
    else:
        instance.notices.watch()
        serve(wire, instance)


def load_concurrency() -> "ModuleType":
    sys.path.insert(0, HERE)
    try:
        import python_concurrency
    finally:
        del sys.path[0]
    return python_concurrency


def own_modules() -> "list[str]":
    """Return the names of the worker's modules, which user code must not find.

    A template calls the function before it forks, because in the forked process the search would copy many memory
    pages.
    """
    return [
        name
        for name, module in list(sys.modules.items())
        if name != "__main__" and (getattr(module, "__file__", None) or "").startswith(HERE + os.sep)
    ]


def hide_own_modules(own: "Sequence[str]") -> None:
    """Remove the worker's modules from ``sys.modules``, because user code may have modules with the same names."""
    for name in [*(own or own_modules()), "python_concurrency"]:
        sys.modules.pop(name, None)


def exit_with_engine() -> None:
    """Have the kernel kill this process when its parent (the engine) exits, even during a long call of user code."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass  # the closed socket ends the process after the call


def run(fd: int, own: "Sequence[str]" = ()) -> "NoReturn":
    """Serve the engine's socket, given by its descriptor, then exit. Never returns.

    A template calls the function in a forked process; ``own`` is the result of ``own_modules`` in the template.
    """
    status = 1
    try:
        os.set_inheritable(fd, False)
        start(Wire(fd), own)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        flush()
        os._exit(status)  # user threads and exit handlers must not delay the exit


if __name__ == "__main__":
    exit_with_engine()
    run(int(sys.argv[1]))
