"""An instance of a Python function: started by path in a child, it serves one request after another until its socket closes.

Run as ``python -I python_worker.py <descriptor>``. Standard library only, Python 3.9 syntax, nothing of the engine:
what it imports is what user code finds imported, and what it costs is paid by each cold start.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from python_context import Context, Logger  # noqa: E402
from python_wire import INVOKE, ITSELF, LOGGER, LONGEST_MESSAGE, SETUP, STDERR, STDOUT, Stream, Wire, flush  # noqa: E402

del sys.path[0]

OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED, INIT_FAILED, NO_MEMORY, DISK_FULL = (
    0, 4001, 4002, 4004, 4007, 4009, 4201, 4205, 4207,
)
PREFIX = {
    ENTRY: "function entry exception, error: ",
    USER: "function invocation exception, error: ",
    BAD_RESULT: "function result is invalid, error: ",
    INIT_RAISED: "function initialization exception, error: ",
    INIT_FAILED: "function initialization exception, error: ",
    NO_MEMORY: "function memory exceeded, error: ",
    DISK_FULL: "function disk usage exceeded, error: ",
}
NO_SPACE = 28, 122  # ENOSPC, EDQUOT
OURS = (__file__, sys.modules["python_context"].__file__, sys.modules["python_wire"].__file__)


class Failure(Exception):
    """An answer with a code; ``result`` is the error as JSON text."""

    def __init__(self, code, text, result=None):
        Exception.__init__(self, text)
        self.code, self.text = code, text
        self.result = error_body(text, "FunctionError", []) if result is None else result


# --- errors -----------------------------------------------------------------------------------------------------


def error_body(message, kind, trace):
    body = {"errorMessage": message[:LONGEST_MESSAGE], "errorType": kind, "stackTrace": trace[-50:]}
    return json.dumps(body, indent=4).encode()


def describe(error):
    """An exception as code-free pieces: a line, and the documented error body with the user's frames only."""
    import traceback

    frames = [
        line.rstrip("\n")[:2000]
        for frame, line in zip(traceback.extract_tb(error.__traceback__), traceback.format_tb(error.__traceback__))
        if frame.filename not in OURS and not frame.filename.startswith("<frozen importlib")
    ]
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return "%s: %s" % (kind, text) if text else kind, error_body(text, kind, frames)


def failure(code, error):
    """What went wrong in user code, as an answer."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        code = NO_MEMORY
    elif isinstance(error, OSError) and error.errno in NO_SPACE:
        code = DISK_FULL
    try:
        line, body = describe(error)
    except BaseException as second:
        line = "%s, and describing it raised %s" % (type(error).__name__, type(second).__name__)
        body = None
    return Failure(code, PREFIX[code] + line, body)


# --- loading and running ----------------------------------------------------------------------------------------


def load(entry):
    """The callable that ``dir/file.function`` names."""
    path, dot, name = entry.rpartition(".")
    if not (dot and path and name):
        raise Failure(ENTRY, "%s'%s' is no handler, write file.function" % (PREFIX[ENTRY], entry))
    module = load_module(path.strip("/"), entry)
    target = getattr(module, name, None)
    if not callable(target):
        raise Failure(ENTRY, "%sthere is no function '%s' in %s" % (PREFIX[ENTRY], name, path))
    return target


def load_module(path, entry):
    from importlib import import_module, util

    name = path.replace("/", ".")
    known = sys.modules.get(name)
    file = os.path.join(os.getcwd(), path + ".py")
    if known is not None and getattr(known, "__file__", None) == file:
        return known
    if os.path.isfile(file):
        spec = util.spec_from_file_location(name, file)
        module = util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # a file named like a loaded standard module must not replace it
        spec.loader.exec_module(module)
        return module
    if util.find_spec(name.partition(".")[0]) is None:
        raise Failure(ENTRY, "%sthere is no file %s.py for the handler '%s'" % (PREFIX[ENTRY], path, entry))
    return import_module(name)


class Caller:
    """Calls user code; what a coroutine function returns is awaited on one loop, kept for the life of the instance."""

    def __init__(self):
        self.loop = None

    def __call__(self, function, *args):
        result = function(*args)
        if type(result) is COROUTINE:
            return self.wait(result)
        return result

    def wait(self, coroutine):
        import asyncio

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(coroutine)


async def _sample():
    pass


_coroutine = _sample()
COROUTINE = type(_coroutine)
_coroutine.close()


def encode(value, limit):
    if type(value) is str:
        result = value.encode("utf-8", "replace")
    elif value is None:
        return b""
    else:
        try:
            result = (value if isinstance(value, str) else json.dumps(value, default=vars)).encode("utf-8", "replace")
        except MemoryError:
            raise
        except Exception as error:
            raise failure(BAD_RESULT, error)
    if len(result) > limit:
        raise Failure(TOO_LARGE, "the response has %d bytes, more than the %d allowed" % (len(result), limit))
    return result


class Instance:
    def __init__(self, setup, wire):
        self.setup, self.call = setup, Caller()
        self.logger = Logger(lambda line: wire.log(LOGGER, line.encode("utf-8", "backslashreplace")))
        self.limit = setup["result_limit"]
        self.handler = None

    def prepare(self):
        """Load the handler, then run the initializer. Raises Failure."""
        try:
            self.handler = load(self.setup["handler"])
            entry = self.setup.get("initializer")
            initializer = load(entry) if entry else None
        except BaseException as error:
            raise failure(ENTRY, error)
        if initializer is None:
            return
        try:
            self.call(initializer, Context(self.setup, self.logger, "", ""))
        except BaseException as error:
            raise failure(INIT_RAISED, error)

    def invoke(self, request_id, alias, event):
        """The result as bytes. Raises Failure."""
        self.logger.request_id = request_id
        context = Context(self.setup, self.logger, request_id, alias)
        try:
            value = json.loads(event) if event else None
            result = self.call(self.handler, value, context)
        except BaseException as error:
            raise failure(USER, error)
        try:
            return encode(result, self.limit)
        except BaseException as error:
            raise failure(BAD_RESULT, error)

    def stop(self):
        """Its last words, which nobody answers; what they raise is told in the log."""
        entry = self.setup.get("pre_stop")
        if not entry:
            return
        try:
            self.call(load(entry))
        except BaseException as error:
            sys.stderr.write("pre-stop handler: %s\n" % describe(error)[0])
        flush()


def serve(wire, instance):
    while True:
        frame = wire.read()
        if frame is None:
            return
        kind, body = frame
        if kind != INVOKE:
            instance.stop()
            wire.finish(ITSELF)
            return
        ticket = wire.ticket = int.from_bytes(body[:4], "big")
        split = 6 + body[4]
        end = split + body[5]
        try:
            code, message = OK, ""
            result = instance.invoke(body[6:split].decode(), body[split:end].decode(), body[end:])
        except Failure as problem:
            code, message, result = problem.code, problem.text, problem.result
        wire.answer(INVOKE, ticket, code, message, result)
        wire.ticket = ITSELF


def die_with_engine():
    """A long call must not outlive the engine: the kernel kills this process when its parent is gone."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass  # then the closed socket ends it after the call


def run(fd):
    """Serve that socket; never returns. Also for a process that was forked with all this loaded."""
    try:
        main(fd)
    finally:
        flush()
        os._exit(0)  # user threads and exit handlers must not hold an instance that has been dismissed


def main(fd):
    os.set_inheritable(fd, False)
    wire = Wire(fd)
    sys.stdout = sys.__stdout__ = Stream.text(wire, STDOUT)
    sys.stderr = sys.__stderr__ = Stream.text(wire, STDERR)
    frame = wire.read()
    if frame is None or frame[0] != SETUP:
        return
    setup = json.loads(frame[1])
    sys.path[:0] = [setup["code"]] + setup.get("layers", [])
    sys.argv[:] = [setup["code"]]
    instance = Instance(setup, wire)
    try:
        instance.prepare()
    except Failure as problem:
        wire.answer(SETUP, ITSELF, problem.code, problem.text, problem.result)
        return
    wire.answer(SETUP, ITSELF, OK, "", b"")
    serve(wire, instance)


if __name__ == "__main__":
    die_with_engine()
    run(int(sys.argv[1]))
