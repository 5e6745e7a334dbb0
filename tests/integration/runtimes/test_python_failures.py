"""Documented error codes of failing Python functions, each provoked by a real failure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import functiond.instance
import pytest

from engine.model import Code
from engine.runtimes.protocol import Answer
from tests.support.python_process import PythonProcess

SHAPES = """
import decimal, enum, functools


class Text(str): pass


class Slotted:
    __slots__ = ("x",)


class Answer:
    def __init__(self, code):
        self.statusCode, self.headers = code, {}


class Handler:
    def __call__(self, event, context): return event
    def method(self, event, context): return event
    @classmethod
    def of_class(cls, event, context): return event
    @staticmethod
    def static(event, context): return event
    async def soon(self, event, context): return event


class Awaitable:
    def __await__(self):
        yield from ()
        return "awaited"


def handler(event, context):
    return eval(event)


def generator(event, context):
    yield event


async def async_generator(event, context):
    yield event


instance, method, soon, static = Handler(), Handler().method, Handler().soon, Handler.static
of_class, later = Handler.of_class, functools.partial(lambda extra, event, context: event, 1)
"""


def answer(folder: Path, source: str, event: Any = None, **setup: Any) -> Answer:
    with PythonProcess(folder, source, **setup) as instance:
        if instance.ready.code:
            return instance.ready
        instance.ask(event)
        return instance.answer()


#: Begin of the message by code.
BEGINS = {
    Code.USER_EXCEPTION: "function invocation exception, error: ",
    Code.OUT_OF_MEMORY: "function memory exceeded, error: ",
    Code.DISK_FULL: "function disk usage exceeded, error: ",
    Code.BAD_RESULT: "function result is invalid, error: ",
    Code.RESPONSE_TOO_LARGE: "the response has ",
}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise KeyError('a')", Code.USER_EXCEPTION, "KeyError: 'a'"),
        ("raise Exception", Code.USER_EXCEPTION, "Exception"),
        ("import sys; sys.exit(3)", Code.USER_EXCEPTION, "SystemExit: 3"),
        ("raise type('Textless', (Exception,), {'__str__': lambda self: 1 / 0})", Code.USER_EXCEPTION, "Textless"),
        ("raise KeyboardInterrupt", Code.USER_EXCEPTION, "KeyboardInterrupt"),
        ("(lambda f: f(f))(lambda f: f(f))", Code.USER_EXCEPTION, "RecursionError: "),
        ("raise ValueError('x' * 10_000)", Code.USER_EXCEPTION, "ValueError: xxx"),
        ("bytearray(1 << 60)", Code.OUT_OF_MEMORY, "MemoryError"),
        ("open('/dev/full', 'w').write('x' * 10_000)", Code.DISK_FULL, "OSError: "),
        ("a = []; a.append(a); return a", Code.BAD_RESULT, "ValueError: Circular reference"),
        ("return b'bytes'", Code.BAD_RESULT, "TypeError: Object of type bytes"),
        (
            "import array; return {'widths': array.array('i', [1])}",  # like an array of numpy
            Code.BAD_RESULT,
            "TypeError: Object of type array is not JSON serializable: return its tolist()",
        ),
        ("return 'x' * (6 * 1024 * 1024 + 1)", Code.RESPONSE_TOO_LARGE, "6291457 bytes"),
        ("return ['é'] * 900_000", Code.RESPONSE_TOO_LARGE, ""),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_a_handler_does_wrong_has_its_code(tmp_path: Path, kind: str, body: str, code: Code, message: str) -> None:
    told = answer(tmp_path, f"{kind} handler(event, context):\n    {body}\n")

    assert told.code == code
    assert told.message.startswith(BEGINS[code] + message)
    shown = json.loads(told.result)
    bases = {"KeyError": ["KeyError", "LookupError"], "RecursionError": ["RecursionError", "RuntimeError"]}
    assert list(shown)[:3] == ["errorMessage", "errorType", "stackTrace"]
    assert shown.get("errorClasses") == bases.get(shown["errorType"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise ValueError", Code.INITIALIZER_ERROR),
        ("raise SystemExit(0)", Code.INITIALIZER_ERROR),
        ("open('/dev/full', 'w').write('x' * 10_000)", Code.DISK_FULL),
        ("bytearray(1 << 60)", Code.OUT_OF_MEMORY),
    ],
)
def test_what_an_initializer_does_wrong_has_its_code(tmp_path: Path, body: str, code: Code) -> None:
    source = f"def prepare(context):\n    {body}\ndef handler(event, context): pass"

    assert answer(tmp_path, source, initializer="index.prepare").code == code


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("Text('{\"a\": 1}')", b'{"a": 1}'),
        ("''", b""),
        ("{'b': 1, 'a': [True, None, 1.5]}", b'{"b": 1, "a": [true, null, 1.5]}'),
        ("(1, 2)", b"[1, 2]"),
        ("0", b"0"),
        ("Awaitable()", b"awaited"),
        ("Handler().soon('by method', None)", b"by method"),
        ("Answer(201)", b'{"statusCode": 201, "headers": {}}'),
    ],
)
def test_results_are_written_as_documented(tmp_path: Path, expression: str, result: bytes) -> None:
    told = answer(tmp_path, SHAPES, expression)

    assert (told.code, told.result) == (0, result)


@pytest.mark.parametrize(
    "expression", ["{1, 2}", "Slotted()", "decimal.Decimal(1)", "(n for n in 'ab')", "{(1, 2): 3}", "object()", "1j"]
)
def test_what_cannot_be_written_is_4007(tmp_path: Path, expression: str) -> None:
    told = answer(tmp_path, SHAPES, expression)

    assert told.code == Code.BAD_RESULT
    assert told.message.startswith("function result is invalid, error: TypeError: ")


@pytest.mark.parametrize("name", ["instance", "method", "soon", "static", "of_class", "later"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_whatever_can_be_called_is_a_handler(tmp_path: Path, name: str, concurrency: int) -> None:
    told = answer(tmp_path, SHAPES, "given", handler=f"index.{name}", concurrency=concurrency)

    assert (told.code, told.result) == (0, b"given")


@pytest.mark.parametrize("name", ["generator", "async_generator"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_generators_are_no_handlers(tmp_path: Path, name: str, concurrency: int) -> None:
    assert answer(tmp_path, SHAPES, handler=f"index.{name}", concurrency=concurrency).code == Code.BAD_RESULT


# --- the stack trace ---

DEEP = """
import asyncio, json, threading


def fail():
    return json.loads("{")


{kind} handler(event, context):
    return fail()
"""


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_stack_trace_begins_with_the_users_code(tmp_path: Path, kind: str, concurrency: int) -> None:
    told = answer(tmp_path, DEEP.replace("{kind}", kind), concurrency=concurrency)

    trace = json.loads(told.result)["stackTrace"]
    file = tmp_path / "code" / "index.py"
    assert trace[0].startswith(f'  File "{file}", line 10, in handler\n    return fail()')
    assert trace[1].startswith(f'  File "{file}", line 6, in fail')
    assert [os.path.basename(os.path.dirname(line.split('"')[1])) for line in trace[2:]] == ["json"] * 3


APP = """
import array
from functiond import App

app = App()


@app.function()
{kind} resize(path):
    return array.array("i", [1]) if path == "array" else fail()


def fail():
    raise LookupError("no image")
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_functions_of_an_app_fail_without_frames_of_functiond(tmp_path: Path, kind: str) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "images.py").write_text(APP.replace("{kind}", kind))
    (code / "functiond.py").write_bytes(Path(functiond.instance.__file__).read_bytes())
    handler = "from functiond import handler_of\nhandler = handler_of('images:app', 'resize')\n"
    with PythonProcess(tmp_path, handler) as instance:
        instance.ask("a.png")
        trace = json.loads(instance.answer().result)["stackTrace"]
        instance.ask("array")
        refused = instance.answer()

    assert [line.split("\n")[0] for line in trace] == [
        f'  File "{code}/images.py", line 10, in resize',
        f'  File "{code}/images.py", line 14, in fail',
    ]
    assert refused.message.endswith("TypeError: Object of type array is not JSON serializable: return its tolist()")
    assert "functiond" not in refused.result.decode()


def test_what_a_thread_of_the_functions_raises_fails_nobody(tmp_path: Path) -> None:
    source = """
import threading


def handler(event, context):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return "done"
"""
    with PythonProcess(tmp_path, source) as instance:
        instance.ask()

        assert instance.answer().result == b"done"
    assert instance.lines[-1].text == "ZeroDivisionError: division by zero"


def test_a_failure_while_loading_shows_the_users_frames_only(tmp_path: Path) -> None:
    told = answer(tmp_path, "def build():\n    raise ImportError('needs libc5')\nbuild()")

    trace = json.loads(told.result)["stackTrace"]
    assert told.code == Code.ENTRY_NOT_FOUND
    assert [line.split('"')[1] for line in trace] == [str(tmp_path / "code" / "index.py")] * 2
