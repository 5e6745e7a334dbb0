"""An instance of a Python function: started by path in a child, it serves one request after another until its socket closes.

Run as ``python -I python_worker.py <descriptor>``, or by ``run`` in a forked process. Standard library only, Python 3.9
syntax, nothing of the engine: what it imports is what user code finds imported, and what it costs is paid by each cold
start. The frames are described in ``engine/runtimes/protocol.py``. What user code prints goes out as frames, too; it writes
nothing to the descriptors of stdout and stderr itself.
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from python_failures import OK, USER, Failure, failure, warn  # noqa: E402
from python_instance import Instance, Request  # noqa: E402
from python_output import flush, redirect  # noqa: E402
from python_wire import INVOKE, ITSELF, READY, SETUP, STOP, Wire  # noqa: E402

del sys.path[0]

OURS = ()  # names of modules that user code must not find, if they are known beforehand


def serve(wire, instance):
    """One request at a time, in the main thread, without a loop of ours."""
    while True:
        try:
            serve_undisturbed(wire, instance)
            return
        except BaseException as error:
            recover(wire, error)


def serve_undisturbed(wire, instance):
    """Apart: what a signal handler raises between two turns of a loop is caught by no ``try`` of the same function."""
    while serve_one(wire, instance):
        pass


def serve_one(wire, instance):
    """Whether there may be another."""
    kind, body = wire.read()
    if kind == INVOKE:
        request = Request(body)
        wire.begin(request)
        request.run(instance)
        request.finish(wire)
        return True
    if kind == STOP:
        instance.stop()
    return False


def recover(wire, error):
    """A signal handler that user code has left behind may raise anywhere: no reason to die."""
    request = wire.current()
    if request is ITSELF:
        warn("between requests", error)
    else:
        request.fail(failure(USER, error))
        request.finish(wire)


def start(wire):
    """Become the instance that the engine asks for, and serve."""
    kind, body = wire.read()
    if kind != SETUP:
        return
    wire.taken()
    setup = json.loads(body)
    places = setup.get("concurrency", 1)
    if places > 1:
        concurrency = load_concurrency()
        wire = concurrency.SharedWire(wire.fd)
    redirect(wire)
    hide()
    sys.path[:0] = [setup["code"]] + setup.get("layers", [])
    sys.argv[:] = [setup["code"]]
    instance = Instance(setup, wire)
    try:
        answer = OK, "", instance.prepare()
    except Failure as problem:
        answer = problem.code, problem.text, problem.result
    flush()
    wire.answer(READY, ITSELF, *answer)
    if answer[0] != OK:
        return
    if places > 1:
        concurrency.serve(wire, instance, places)
    else:
        serve(wire, instance)


def load_concurrency():
    sys.path.insert(0, HERE)
    try:
        import python_concurrency
    finally:
        del sys.path[0]
    return python_concurrency


def own_modules():
    """Names of those that user code must not find. A template looks for them before it forks: in the forked process
    that would cost a copy of each page on which a module is."""
    return [name for name, module in list(sys.modules.items())
            if name != "__main__" and (getattr(module, "__file__", None) or "").startswith(HERE + os.sep)]


def hide():
    """User code may have modules of the same names as ours."""
    for name in [*(OURS or own_modules()), "python_concurrency"]:
        sys.modules.pop(name, None)


def die_with_engine():
    """A long call must not outlive the engine: the kernel kills this process when its parent is gone."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass  # then the closed socket ends it after the call


def run(fd):
    """Serve that socket; never returns. Also for a process that was forked with all this loaded."""
    status = 1
    try:
        os.set_inheritable(fd, False)
        start(Wire(fd))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        flush()
        os._exit(status)  # user threads and exit handlers must not hold an instance that has been dismissed


if __name__ == "__main__":
    die_with_engine()
    run(int(sys.argv[1]))
