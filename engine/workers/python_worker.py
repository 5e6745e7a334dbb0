"""An instance of a Python function: started by path in a child, it serves one request after another until its socket closes.

Run as ``python -I python_worker.py <descriptor>``. Standard library only, Python 3.9 syntax, nothing of the engine:
what it imports is what user code finds imported, and what it costs is paid by each cold start.
The frames are described in ``engine/frames.py``. It writes nothing to stdout or stderr itself.
"""

import json
import os
import resource
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from python_context import Context, Logger  # noqa: E402

del sys.path[0]

SETUP, INVOKE = 1, 2
OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED, INIT_FAILED, NO_MEMORY = (
    0, 4001, 4002, 4004, 4007, 4009, 4201, 4205,
)
PREFIX = {
    ENTRY: "function entry exception, error: ",
    USER: "function invocation exception, error: ",
    BAD_RESULT: "function result is invalid, error: ",
    INIT_RAISED: "function initialization exception, error: ",
    INIT_FAILED: "function initialization exception, error: ",
    NO_MEMORY: "function memory exceeded, error: ",
}
LONGEST_MESSAGE = 4096
OURS = (__file__, sys.modules["python_context"].__file__)


class Failure(Exception):
    """An answer with a code; ``result`` is the error as JSON text."""

    def __init__(self, code, text, result=None):
        Exception.__init__(self, text)
        self.code, self.text = code, text
        self.result = error_body(text, "FunctionError", []) if result is None else result


# --- the socket -------------------------------------------------------------------------------------------------


class Wire:
    def __init__(self, fd):
        self.fd, self.pid, self.memory = fd, os.getpid(), Memory()

    def read(self):
        """One frame: its kind and body; None when the engine has closed the socket."""
        data = os.read(self.fd, 65536)
        while len(data) < 4:
            more = os.read(self.fd, 65536)
            if not more:
                return None
            data += more
        length = int.from_bytes(data[:4], "big") + 4
        if len(data) < length:
            pieces, have = [data], len(data)
            while have < length:
                more = os.read(self.fd, length - have)
                if not more:
                    return None
                pieces.append(more)
                have += len(more)
            data = b"".join(pieces)
        return data[4], data[5:]

    def answer(self, kind, code, message, result):
        if os.getpid() != self.pid:
            os._exit(0)  # a child that user code forked came back from the handler: there is one answer, not two
        flush()
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace")
        length = 11 + len(text) + len(result)
        head = (length.to_bytes(4, "big") + bytes((kind,)) + code.to_bytes(2, "big")
                + self.memory.peak().to_bytes(4, "big") + len(text).to_bytes(4, "big"))
        rest = head + text + result
        sent = os.write(self.fd, rest)
        if sent < len(rest):
            rest = memoryview(rest)
            while sent < len(rest):
                sent += os.write(self.fd, rest[sent:])


class Memory:
    """The peak of resident memory. getrusage alone would do, but a child made by vfork and exec inherits there the
    peak of the engine; so /proc is asked, only when pages have been faulted in since."""

    def __init__(self):
        self.inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.faults, self.known = -1, 0

    def peak(self):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if usage.ru_maxrss > self.inherited:
            return usage.ru_maxrss
        if usage.ru_minflt != self.faults:
            self.known = self.high_water() or usage.ru_maxrss
            # Asking faults pages in, too.
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return self.known

    @staticmethod
    def high_water():
        try:
            fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, 4096)
            finally:
                os.close(fd)
            at = text.index(b"VmHWM:")
            return int(text[at + 6:text.index(b"kB", at)])
        except (OSError, ValueError):
            return 0


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # user code may have closed or replaced it


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
    def __init__(self, setup):
        self.setup, self.logger, self.call = setup, Logger(), Caller()
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


def serve(wire, instance):
    while True:
        frame = wire.read()
        if frame is None:
            return
        kind, body = frame
        if kind != INVOKE:
            return
        split = 2 + body[0]
        end = split + body[1]
        try:
            code, message = OK, ""
            result = instance.invoke(body[2:split].decode(), body[split:end].decode(), body[end:])
        except Failure as problem:
            code, message, result = problem.code, problem.text, problem.result
        wire.answer(INVOKE, code, message, result)


def die_with_engine():
    """A long call must not outlive the engine: the kernel kills this process when its parent is gone."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass  # then the closed socket ends it after the call


def main():
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    die_with_engine()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    wire = Wire(fd)
    frame = wire.read()
    if frame is None or frame[0] != SETUP:
        return
    setup = json.loads(frame[1])
    sys.path[:0] = [setup["code"]] + setup.get("layers", [])
    sys.argv[:] = [setup["code"]]
    instance = Instance(setup)
    try:
        instance.prepare()
    except Failure as problem:
        wire.answer(SETUP, problem.code, problem.text, problem.result)
        return
    wire.answer(SETUP, OK, "", b"")
    serve(wire, instance)


if __name__ == "__main__":
    try:
        main()
    finally:
        flush()
        os._exit(0)  # user threads and exit handlers must not hold an instance that has been dismissed
