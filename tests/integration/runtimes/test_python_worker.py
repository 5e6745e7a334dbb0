"""Runtime contract of Python functions, tested on real instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.logs.lines import plain
from engine.model import Code
from tests.support.executing import function
from tests.support.instances import value

FILES = {
    "index.py": """
import os, sys, threading


def forked(event, context):
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"


def print_without_flush(event, context):
    sys.stdout = open(1, "w", buffering=65536, closefd=False)
    print("late")


def close_stdout(event, context):
    sys.stdout.close()
    os.close(1)
    return "still here"


def thread_left(event, context):
    threading.Thread(target=threading.Event().wait).start()
    return "done"


def wrong_socket(event, context):
    for fd in os.listdir("/proc/self/fd"):
        try:
            os.write(int(fd), b"garbage that is no frame at all")
        except OSError:
            pass
    threading.Event().wait(20)
"""
}


async def test_a_handler_may_lie_in_a_folder_and_use_its_neighbours(tmp_path: Path, run: Any) -> None:
    (tmp_path / "code" / "my-src").mkdir()
    (tmp_path / "code" / "my-src" / "json.py").write_text("import helper\ndef handler(e, c): return helper.NAME")
    (tmp_path / "code" / "helper.py").write_text("NAME = 'helper'")

    outcome = await run(function("my-src/json.handler"))

    assert outcome.result == b"helper"


async def test_a_file_named_like_a_standard_module_is_loaded_without_replacing_it(tmp_path: Path, run: Any) -> None:
    source = "def prepare(c): globals()['ready'] = True\ndef handler(e, c): return [ready, names()]\n"
    names = "def names():\n    import json\n    return hasattr(json, 'dumps')"
    (tmp_path / "code" / "json.py").write_text(source + names)

    outcome = await run(function("json.handler", initializer_handler="json.prepare"))  # both in one module

    assert value(outcome) == [True, True]


async def test_user_code_finds_nothing_of_the_engine_and_no_asyncio(tmp_path: Path, run: Any) -> None:
    (tmp_path / "code" / "bare.py").write_text(
        "import sys\ndef handler(e, c): return [m for m in e if m in sys.modules]"
    )

    outcome = await run(function("bare.handler"), ["engine", "msgspec", "asyncio", "json"])

    assert value(outcome) == ["json"]


async def test_what_writes_to_the_socket_of_the_engine_fails(run: Any) -> None:
    outcome = await run(function("wrong_socket"))

    assert (outcome.code, "socket" in outcome.message) == (Code.USER_EXCEPTION, True)


async def test_a_forked_copy_of_the_handler_gives_no_second_answer(run: Any) -> None:
    asked = function("forked")

    outcomes = [await run(asked), await run(asked)]

    assert [outcome.result for outcome in outcomes] == [b"parent", b"parent"]


async def test_output_in_buffers_belongs_to_the_request_that_wrote_it(run: Any) -> None:
    assert plain((await run(function("print_without_flush"))).log) == b"late\n"


async def test_a_function_may_close_its_stdout(run: Any) -> None:
    asked = function("close_stdout")

    first, second = await run(asked), await run(asked)

    assert first.result == b"still here"
    assert second.code == Code.USER_EXCEPTION  # no descriptor is left that it could close


async def test_a_thread_left_behind_does_not_hold_the_answer_or_the_instance(run: Any) -> None:
    assert (await run(function("thread_left"))).result == b"done"
