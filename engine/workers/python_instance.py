"""Loading and calling of the handlers of a Python function, and conversion of results to answers.

Standard library only, Python 3.9 syntax.
"""

import json
import os
import sys
from _contextvars import copy_context

from python_context import Context, Logger
from python_failures import Failure, failure, warn
from python_notices import TEXTS, Notices
from python_output import flush
from python_wire import ITSELF, REQUEST, Wire
from worker_frames import BAD_RESULT, DONE, ENTRY, INIT_RAISED, NO_FACTS, OK, PREFIX, TOO_LARGE, USER, Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from types import ModuleType
    from typing import Any

    from worker_types import Setup


class Request(Invocation):
    """Request for the handler, and its answer."""

    def __init__(self, body: bytes) -> None:
        Invocation.__init__(self, body)
        self.answer: tuple[int, str, bytes] = (OK, "", b"")
        self.context: Context | None = None  # once the handler is about to run
        self.early = ""  # reason in a notice that arrived before

    def run(self, instance: "Instance") -> None:
        """Call the handler and store the answer. Raises an error only if a signal handler of user code does."""
        try:
            self.answer = OK, "", instance.invoke(self)
        except Failure as problem:
            self.fail(problem)

    def fail(self, problem: Failure) -> None:
        self.answer = problem.code, problem.text, problem.result

    def finish(self, wire: Wire) -> None:
        flush()
        if self.context is not None:
            self.context._send_report()
        wire.answer(DONE, self, *self.answer)


class Caller:
    """Caller of handlers.

    An awaitable that a handler returns runs on one event loop, which exists as long as the instance.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[object] | None = None  # that runs the awaitable of a plain call

    def __call__(self, function: "Callable[..., Any]", *args: object) -> object:
        result = function(*args)
        if hasattr(type(result), "__await__"):
            return self.wait(result)
        return result

    def wait(self, awaitable: "Awaitable[object]") -> object:
        loop = self.open_loop()
        self.task = loop.create_task(completed(awaitable))
        try:
            return loop.run_until_complete(self.task)
        finally:
            self.task = None

    def open_loop(self) -> "asyncio.AbstractEventLoop":
        import asyncio

        if self.loop is None:
            self.loop = early_loop() or asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop


def early_loop() -> "asyncio.AbstractEventLoop | None":
    """Return the current event loop before Python 3.10, otherwise None.

    Up to Python 3.9, an asyncio Event or Queue that a module creates is bound to the current event loop at once.
    """
    if sys.version_info >= (3, 10):
        return None
    import asyncio

    try:
        return asyncio.get_event_loop()
    except RuntimeError:  # no loop in this thread
        return None


async def completed(awaitable: "Awaitable[object]") -> object:
    return await awaitable


class Instance:
    """Python function that this process serves: its handlers, and the calls of them with a context object."""

    served: "Instance | None" = None  # which ``functiond_api`` finds, as the worker is ``__main__``

    def __init__(self, setup: "Setup", wire: Wire) -> None:
        self.setup, self.wire, self.call = setup, wire, Caller()
        self.logger = Logger(wire)
        self.modules: dict[str, ModuleType] = {}  # modules of handlers, by path
        self.notices = Notices(wire, self.call)
        self.traced = False  # the last request had a trace context
        self.handler: Callable[..., Any]  # once ``prepare`` has loaded it

    def prepare(self) -> bytes:
        """Load the handler, then run the initializer. Return an empty result. Raises Failure if user code fails."""
        self.handler = load(self.setup["handler"], self.modules)
        entry = self.setup.get("initializer")
        if not entry:
            return b""
        initializer = load(entry, self.modules)
        context = Context(self.setup, self.logger, "", "", self.setup["initializer_timeout"])
        try:
            self.call(initializer, context)
        except BaseException as error:
            raise failure(INIT_RAISED, error) from None
        return b""

    def invoke(self, request: Request) -> bytes:
        """Call the handler and return its result as bytes.

        Raises Failure if user code fails or the result is not allowed.
        """
        try:
            arguments = self.arguments(request)
            if self.notices.watching and (self.notices.missed or self.wire.received):  # came with the request
                self.notices.receive(request)
            result = self.call(self.handler, *arguments)
        except BaseException as error:
            raise failure(USER, error) from None
        return self.encode(result)

    async def invoke_async(self, request: Request) -> bytes:
        """Call an async handler on the running event loop and return its result as bytes.

        Raises Failure like ``invoke``.
        """
        try:
            result = await self.handler(*self.arguments(request))
        except BaseException as error:
            raise failure(USER, error) from None
        return self.encode(result)

    def arguments(self, request: Request) -> "tuple[object, Context]":
        context = request.context = Context(self.setup, self.logger, request.id, request.alias)
        context._ticket, context._facts = request.ticket, request.facts or NO_FACTS
        if request.traceparent or self.traced:
            self.trace(context, request.traceparent)
        if request.early in TEXTS:
            raise SystemExit(TEXTS[request.early])
        if request.early:
            context._note(request.early)
        return json.loads(request.event.decode()) if request.event else None, context

    def trace(self, context: Context, traceparent: str) -> None:
        """Give the trace context to the handler.

        The environment has it only if the instance serves one request at a time.
        """
        context.traceparent, self.traced = traceparent, bool(traceparent)
        if self.setup.get("concurrency", 1) == 1:
            if traceparent:
                os.environ["TRACEPARENT"] = traceparent
            else:
                os.environ.pop("TRACEPARENT", None)

    def encode(self, value: object) -> bytes:
        """Return a result as bytes: text unchanged, None as empty, other values as JSON (FunctionGraph's rule).

        Raises Failure if the result cannot be written as JSON or is too large.
        """
        try:
            if value is None:
                return b""
            text = value if isinstance(value, str) else json.dumps(value, default=attributes)
            result = text.encode("utf-8", "replace")
        except BaseException as error:
            raise failure(BAD_RESULT, error) from None
        limit = self.setup["result_limit"]
        if len(result) > limit:
            raise Failure(TOO_LARGE, f"the response has {len(result)} bytes, more than the {limit} allowed")
        return result

    def running(self, context: "Context | None" = None) -> Context:
        """Return the context of the request for which the calling code runs, or this one if its request runs.

        Raises RuntimeError if there is none: what code queues belongs to the run of a request.
        """
        if os.getpid() != self.wire.pid:
            raise RuntimeError("a process that the handler has started cannot queue calls: queue them in the handler")
        self.inherit_requests()
        if context is None:
            context = getattr(REQUEST.get() or self.wire.current(), "context", None)
        if context is None or not self.wire.runs(context):
            ended = f"request {context._request_id} has ended" if context and context._request_id else "no request runs"
            raise RuntimeError(f"{ended}: queue calls before the handler returns, and in its threads and tasks")
        return context

    def inherit_requests(self, *threads: "Any") -> None:
        """Have threads, and tasks of thread pools, belong to the request of the code that starts them."""
        if self.setup.get("concurrency", 1) == 1:  # otherwise all do
            pools = sys.modules.get("concurrent.futures.thread")
            for kind in threads:
                inherit_by_threads(kind)
            if pools is not None:
                inherit_by_pools(pools.ThreadPoolExecutor)

    def stop(self) -> None:
        """Run the pre-stop handler, if there is one. Errors are only logged, because the engine expects no answer."""
        entry = self.setup.get("pre_stop")
        try:
            if entry:
                self.call(load(entry, self.modules))
        except Failure as problem:
            sys.stderr.write(f"pre-stop handler: {problem.text}\n")
        except BaseException as error:
            warn("pre-stop handler", error)
        flush()
        self.wire.finish(ITSELF)


def attributes(value: object) -> "dict[str, object]":
    try:
        return vars(value)
    except TypeError:
        hint = ": return its tolist()" if hasattr(value, "tolist") else ""
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable{hint}") from None


# --- requests of threads ---


def inherit_by_threads(kind: "Any") -> None:
    """Change ``threading.Thread`` so that a thread runs in the context of the code that starts it.

    Its output then belongs to the same request, as do calls that it queues. A thread of a pool serves many requests.
    """
    start = kind.start

    def start_in_context(thread: "Any") -> None:
        if getattr(getattr(thread, "_target", None), "__module__", "") != "concurrent.futures.thread":
            context, run = copy_context(), thread.run
            thread.run = lambda: context.run(run)
        start(thread)

    kind.start = start_in_context


def inherit_by_pools(kind: "Any") -> None:
    """Change ``ThreadPoolExecutor``, once, so that a task runs in the context of the code that submits it."""
    submit = kind.submit
    if submit.__name__ == "submit_in_context":
        return

    def submit_in_context(pool: "Any", function: "Callable[..., Any]", /, *args: object, **kwargs: object) -> "Any":
        return submit(pool, copy_context().run, function, *args, **kwargs)

    kind.submit = submit_in_context


# --- lookup of handlers ---


def load(entry: str, loaded: "dict[str, ModuleType]") -> "Callable[..., Any]":
    """Return the callable that ``file.function`` names in the folder.

    ``loaded`` keeps the instance's modules by path, as some are not in ``sys.modules``. Raises Failure if the callable
    cannot be imported or found.
    """
    path, dot, name = entry.rpartition(".")
    if not (dot and path and name):
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}'{entry}' is not a handler; write file.function")
    try:
        target: Callable[..., Any] | None = getattr(load_module(path.strip("/"), entry, loaded), name, None)
    except BaseException as error:
        raise failure(ENTRY, error) from None
    if not callable(target):
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}there is no function '{name}' in {path}")
    return target


def load_module(path: str, entry: str, loaded: "dict[str, ModuleType]") -> "ModuleType":
    from importlib import import_module, util

    if path in loaded:
        return loaded[path]
    name = path.replace("/", ".")
    existing = sys.modules.get(name)
    file = os.path.join(os.getcwd(), path + ".py")
    if existing is not None and getattr(existing, "__file__", None) == file:
        return existing
    if os.path.isfile(file):
        spec = util.spec_from_file_location(name, file)
        assert spec
        assert spec.loader  # a file has one if its name ends with .py
        module = util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # a file named like a loaded standard module must not replace it
        spec.loader.exec_module(module)
        loaded[path] = module
        return module
    if util.find_spec(name.partition(".")[0]) is None:
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}there is no file {path}.py for the handler '{entry}'")
    return import_module(name)
