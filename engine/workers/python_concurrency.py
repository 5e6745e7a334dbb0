"""Instance of a Python function that serves several requests at a time.

Async handlers share one event loop in the main thread; each call of a plain handler has a thread. A log line belongs to
the request whose code wrote the line. The module is imported only by instances that need it. Standard library only,
Python 3.9 syntax.
"""

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

from python_failures import Failure, failure, warn
from python_instance import Caller, Instance, Request, completed, inherit_by_pools, inherit_by_threads
from python_notices import parse, tell_elsewhere
from python_wire import ITSELF, REQUEST, Wire
from worker_frames import INVOKE, NOTICE, OK, STOP, USER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable
    from typing import Any

    from worker_types import Origin

COROUTINE = 0x80  # of a code object, as in inspect.CO_COROUTINE


class SharedWire(Wire):
    """Socket to the engine.

    Finds the request of a log line by the context (``contextvars``) of the code that writes the line.
    """

    def __init__(self, fd: int) -> None:
        Wire.__init__(self, fd)
        self.open: set[Origin] = set()  # requests without an answer
        self.entered: list[Request] = []  # the request read last, until it has a thread or task

    def current(self) -> "Origin":
        request = REQUEST.get()
        return request if request is not None and request in self.open else ITSELF

    def runs(self, context: object) -> bool:
        return any(getattr(request, "context", None) is context for request in list(self.open))

    def enter(self, body: bytes) -> "list[Request]":
        """Consume an INVOKE frame. Return a list with its request, which ``take`` removes.

        Notices about the request are accepted from now on.
        """
        values = [Request(body)], self.received[self.length() :]
        list(map(setattr, (self, self), ("entered", "received"), values))  # in one call: see ``Wire.begin``
        self.open.update(self.entered)
        return self.entered

    def begin(self, request: "Origin") -> None:
        REQUEST.set(request)

    def end(self, request: "Origin", frames: bytes) -> None:
        self.open.discard(request)
        self.send(frames)


class SharedCaller(Caller):
    """Caller of plain handlers in threads.

    An awaitable that a handler returns runs on one loop in a separate thread.
    """

    def __init__(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        Caller.__init__(self)
        self.loop, self.running, self.starting = loop, False, threading.Lock()

    def wait(self, awaitable: "Awaitable[object]") -> object:
        import asyncio

        with self.starting:
            loop = self.open_loop()
            if not self.running:
                run = contextvars.Context().run  # in a context without a request
                threading.Thread(target=run, args=(run_on, loop), name="loop", daemon=True).start()
                self.running = True
        return asyncio.run_coroutine_threadsafe(completed(awaitable), loop).result()


def run_on(loop: "asyncio.AbstractEventLoop") -> None:
    """Run the event loop until it is closed.

    Continue after errors of user code, because other requests wait for results.
    """
    while not loop.is_closed():
        try:
            loop.run_forever()
        except BaseException as error:  # sys.exit in a task
            warn("between requests", error)


def serve(wire: "SharedWire", instance: Instance, concurrency: int) -> None:
    inherit_by_threads(threading.Thread)
    inherit_by_pools(ThreadPoolExecutor)
    if is_async(instance.handler):
        serve_loop(wire, instance)
    else:
        serve_threads(wire, instance, concurrency)


# --- plain handlers ---


def serve_threads(wire: "SharedWire", instance: Instance, concurrency: int) -> None:
    instance.call = SharedCaller(instance.call.loop)
    threads = ThreadPoolExecutor(concurrency, "request")
    serving = True
    while serving:
        try:
            kind, body = wire.read()
            if kind == INVOKE:
                threads.submit(answer, wire, instance, wire.enter(body))
                wire.entered = []
            elif kind == NOTICE:
                wire.consume()
                threading.Thread(target=notify, args=(wire, body), name="notice", daemon=True).start()
            else:
                serving = False
        except BaseException as error:
            recover(wire, error)
    if kind == STOP:
        instance.stop()


def answer(wire: "SharedWire", instance: Instance, entered: "list[Request]") -> None:
    """Compute and send the answer to one request. Call in a thread, and in a context of its own."""
    request = take(entered)
    if request is not None:
        wire.begin(request)
        request.run(instance)
        request.finish(wire)


def take(entered: "list[Request]") -> "Request | None":
    """Return the request in the list, which is to be served once. Return None if it was taken before."""
    try:
        return entered.pop()
    except IndexError:
        return None


def recover(wire: "SharedWire", error: BaseException) -> None:
    """Report an error that a signal handler of user code has raised, or the lack of a thread.

    The request that was read last fails with it, unless it has a thread or task.
    """
    request = take(wire.entered)
    if request is None:
        warn("between requests", error)
    else:
        request.fail(failure(USER, error))
        request.finish(wire)


def notify(wire: "SharedWire", body: bytes) -> "Request | None":
    """Deliver a notice to the request that its frame names. Call in a context of its own.

    Return the request if its handler runs and does not heed the notice.
    """
    ticket, reason = parse(body)
    request: Any = next((request for request in list(wire.open) if request.ticket == ticket), None)
    if request is None or not reason:
        return None
    if request.context is None:
        request.early = reason
        return None
    REQUEST.set(request)
    tell_elsewhere(request.context, reason)
    return request if request.context._reason and not request.context._heeds else None


# --- async handlers ---


def serve_loop(wire: "SharedWire", instance: Instance) -> None:
    loop = instance.call.open_loop()
    ended: asyncio.Future[int | None] = loop.create_future()  # with the kind of the frame that ends it
    tasks: dict[Request, asyncio.Task[None]] = {}

    def start(entered: "list[Request]") -> None:
        (request,) = entered
        task = tasks[request] = loop.create_task(answer_async(wire, instance, entered))
        wire.entered = []
        task.add_done_callback(lambda _: tasks.pop(request))

    def read() -> None:
        kind, body = wire.read()
        if kind == INVOKE:
            start(wire.enter(body))
        elif kind == NOTICE:
            wire.consume()
            unheeded = contextvars.copy_context().run(notify, wire, body)
            if unheeded is not None:
                tasks[unheeded].cancel()
        else:
            loop.remove_reader(wire.fd)
            ended.set_result(kind)

    def readable() -> None:
        while not ended.done():
            try:
                read()
            except BaseException as error:
                recover(wire, error)
            if not wire.has_frame():
                return

    loop.add_reader(wire.fd, readable)
    while not ended.done():
        try:
            loop.run_until_complete(ended)
        except BaseException as error:  # raised by a signal handler, or sys.exit in a task of user code
            warn("between requests", error)
    if ended.result() == STOP:
        instance.stop()


async def answer_async(wire: "SharedWire", instance: Instance, entered: "list[Request]") -> None:
    """Compute and send the answer to one request. Call in a task of its own, which also has a context of its own."""
    request = take(entered)
    if request is None:
        return
    wire.begin(request)
    try:
        request.answer = OK, "", await instance.invoke_async(request)
    except Failure as problem:
        request.fail(problem)
    request.finish(wire)


def is_async(handler: "Any") -> bool:
    """Return whether a call of the handler returns a coroutine.

    The flags of the code object are checked directly, because importing inspect is slow.
    """
    while hasattr(handler, "func"):  # functools.partial
        handler = handler.func
    for function in (handler, type(handler).__call__):
        code = getattr(function, "__code__", None)
        if code is not None:
            return bool(code.co_flags & COROUTINE)
    return False
