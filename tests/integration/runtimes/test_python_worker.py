"""Runtime contract of Python functions, tested on real instances."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.logs.lines import plain
from engine.model import Code, Function, Outcome
from tests.support.executing import function, invocation, pool
from tests.support.python_process import VERSIONS, interpreter

SOURCE = """
import asyncio, json, os, sys, threading

started = []


def raising_initializer(context):
    raise ValueError("no database")


def leaving_initializer(context):
    sys.exit(1)


def dying_initializer(context):
    os._exit(5)


async def hanging_initializer(context):
    await asyncio.sleep(60)


def starts(event, context):
    return [os.getpid(), len(started)]


def dying(event, context):
    os._exit(7)


def crashing(event, context):
    import ctypes
    ctypes.string_at(0)


def ask(event, context):
    return {name: getattr(context, name)(*args) for name, args in event}


def named(event, context):
    return {name: getattr(context, name) for name in event} | {"left": context.get_remaining_time_in_millis()}


def environment(event, context):
    seen = {"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[0]}
    return {"argv": sys.argv, "stdin": sys.stdin.read(), **seen}


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


def loop_once(event, context):
    value = []
    value.append(value)
    return value


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def hostile(event, context):
    raise Hostile()


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


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Any]:
    async with pool(tmp_path, SOURCE) as opened:

        async def run(asked: Function, event: Any = None) -> Outcome:
            return await opened.execute(asked, invocation(json.dumps(event), alias="live"))

        yield run


def value(outcome: Outcome) -> Any:
    assert outcome.ok, outcome
    return json.loads(outcome.result)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("raising_initializer", Code.INITIALIZER_ERROR, "ValueError: no database"),
        ("leaving_initializer", Code.INITIALIZER_ERROR, "SystemExit: 1"),
        ("dying_initializer", Code.INIT_FAILED, "exited with status 5"),
        ("hanging_initializer", Code.INIT_TIMEOUT, "longer than the 1 s"),
        ("absent", Code.ENTRY_NOT_FOUND, "'absent'"),
    ],
)
async def test_a_failed_initializer_is_an_outcome(run: Any, name: str, code: Code, text: str) -> None:
    limit = 1 if code == Code.INIT_TIMEOUT else 60
    outcome = await run(function("starts", initializer_handler=f"index.{name}", initializer_timeout=limit))

    assert outcome.code == code
    assert text in outcome.message
    assert code == Code.ENTRY_NOT_FOUND or outcome.message.startswith("function initialization exception, error: ")


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        ("nofile.handler", "no file nofile.py"),
        ("index.nohandler", "no function 'nohandler'"),
        ("index.", "write file.function"),
        ("index", "write file.function"),
        (".handler", "write file.function"),
        ("index.started", "no function 'started'"),
        ("broken.handler", "broken.py, line 1"),
        ("needy.handler", "ModuleNotFoundError: No module named 'not_installed'"),
        ("leaving.handler", "SystemExit"),
    ],
)
async def test_an_entry_that_cannot_be_loaded_is_4001(tmp_path: Path, run: Any, handler: str, text: str) -> None:
    (tmp_path / "code" / "broken.py").write_text("def handler(:")
    (tmp_path / "code" / "needy.py").write_text("import not_installed")
    (tmp_path / "code" / "leaving.py").write_text("import sys; sys.exit(0)")

    outcome = await run(replace(function("starts"), handler=handler))

    assert outcome.code == Code.ENTRY_NOT_FOUND
    assert text in outcome.message
    assert outcome.message.startswith("function entry exception, error: ")


async def test_a_handler_may_lie_in_a_folder_and_use_its_neighbours(tmp_path: Path, run: Any) -> None:
    (tmp_path / "code" / "my-src").mkdir()
    (tmp_path / "code" / "my-src" / "json.py").write_text("import helper\ndef handler(e, c): return helper.NAME")
    (tmp_path / "code" / "helper.py").write_text("NAME = 'helper'")

    outcome = await run(function("my-src/json.handler"))

    assert outcome.result == b"helper"


async def test_a_file_named_like_a_standard_module_is_loaded_without_replacing_it(tmp_path: Path, run: Any) -> None:
    names = "def names(e):\n    import json\n    return hasattr(json, 'dumps')"
    (tmp_path / "code" / "json.py").write_text("def handler(e, c): return [e, names(e)]\n" + names)

    outcome = await run(function("json.handler"), 1)

    assert value(outcome) == [1, True]


async def test_the_initializer_of_such_a_file_prepares_the_module_of_the_handler(tmp_path: Path, run: Any) -> None:
    source = "def prepare(c): globals()['ready'] = True\ndef handler(e, c): return ready"
    (tmp_path / "code" / "json.py").write_text(source)

    outcome = await run(function("json.handler", initializer_handler="json.prepare"))

    assert value(outcome) is True


async def test_the_context_answers_everything_documented(run: Any) -> None:
    asked = function("ask", user_data={"a": "1"}, encrypted_user_data={"s": "2"}, memory_size=512, version="v3")
    questions = {
        "getUserData": (["a"], "1"), "getProjectID": ([], "p"), "getPackage": ([], "default"),
        "getFunctionName": ([], "ask"), "getVersion": ([], "v3"), "getAlias": ([], "live"),
        "getMemorySize": ([], 512), "getCPUNumber": ([], 600), "getRunningTimeInSeconds": ([], 30),
        "getToken": ([], ""), "getAuthToken": ([], ""), "getAccessKey": ([], ""), "getSecretKey": ([], ""),
        "getSecurityAccessKey": ([], ""), "getSecuritySecretKey": ([], ""), "getSecurityToken": ([], ""),
        "getWorkflowID": ([], ""), "getWorkflowRunID": ([], ""), "getWorkflowStateID": ([], ""),
        "get_state": ([], None), "set_state": (["s"], None), "getInvokeProperty": ([], ""), "get_stream": ([], None),
        "get_invoke_property": (["x"], ""), "get_session_id": ([], ""), "getTenantID": ([], ""),
    }  # fmt: skip

    answers = value(await run(asked, [[name, args] for name, (args, _) in questions.items()]))

    assert answers == {name: answer for name, (_, answer) in questions.items()}


async def test_the_context_has_the_names_of_aws_lambda(run: Any) -> None:
    expected = {
        "function_name": "named",
        "function_version": "v3",
        "invoked_function_arn": "arn:aws:lambda:local-1:p:function:named:live",
        "memory_limit_in_mb": 512,
        "log_group_name": "/aws/lambda/named",
        "client_context": None,
        "identity": None,
    }
    names = [*expected, "aws_request_id", "log_stream_name"]

    answers = value(await run(function("named", memory_size=512, version="v3"), names))

    assert {name: answers[name] for name in expected} == expected
    assert answers["aws_request_id"].startswith("00000000-")
    assert answers["log_stream_name"].startswith("[v3]")
    assert 20_000 < answers["left"] <= 30_000


@pytest.mark.parametrize(("args", "answer"), [(["s"], "2"), (["none"], None), (["none", "default"], "default")])
async def test_user_data_never_raises(run: Any, args: list[str], answer: str | None) -> None:
    outcome = await run(function("ask", encrypted_user_data={"s": "2"}), [["getUserData", args]])

    assert value(outcome) == {"getUserData": answer}


async def test_the_environment_is_the_documented_one_and_the_users(tmp_path: Path, run: Any) -> None:
    asked = function("environment", user_data={"COLOUR": "red", "bad=name": "x", "PATH": "/mine"})

    seen = value(await run(asked))

    env, code = seen["env"], str(tmp_path / "code")
    assert (env["COLOUR"], env["PATH"], env["LANG"]) == ("red", "/mine", "C.UTF-8")
    assert (env["RUNTIME_FUNC_NAME"], env["RUNTIME_MEMORY"], env["RUNTIME_CPU"]) == ("environment", "128", "300")
    assert json.loads(env["RUNTIME_USERDATA"]) == asked.user_data
    assert env["HOME"] == env["TMPDIR"] == str(tmp_path / "tmp" / env["FUNCTIOND_INSTANCE"][:12])
    assert (seen["cwd"], seen["path"], seen["argv"], seen["stdin"]) == (code, code, [code], "")


async def test_nothing_of_the_engines_environment_is_inherited(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIOND_SECRET", "s3cret")

    env = value(await run(function("environment")))["env"]

    known = ("RUNTIME_", "PRE_STOP_", "FUNCTIOND_ENGINE", "FUNCTIOND_INSTANCE")
    assert {n for n in env if not n.startswith(known)} <= {"PATH", "LANG", "HOME", "TMPDIR", "LC_CTYPE"}


async def test_user_code_finds_nothing_of_the_engine_and_no_asyncio(tmp_path: Path, run: Any) -> None:
    (tmp_path / "code" / "bare.py").write_text(
        "import sys\ndef handler(e, c): return [m for m in e if m in sys.modules]"
    )

    outcome = await run(function("bare.handler"), ["engine", "msgspec", "asyncio", "json"])

    assert value(outcome) == ["json"]


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        ("dying", Code.USER_EXCEPTION, "exited with status 7"),
        ("crashing", Code.USER_EXCEPTION, "killed by SIGSEGV"),
        ("hostile", Code.USER_EXCEPTION, "Hostile"),
        ("loop_once", Code.BAD_RESULT, "Circular reference"),
        ("wrong_socket", Code.USER_EXCEPTION, "socket"),
    ],
)
async def test_bad_behaviour_is_an_outcome(run: Any, handler: str, code: Code, text: str) -> None:
    outcome = await run(function(handler))

    assert (outcome.code, text in outcome.message) == (code, True), outcome


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


async def test_the_peak_of_memory_is_the_childs_and_not_the_engines(run: Any) -> None:
    ballast = bytearray(os.urandom(1) * (200 << 20))

    outcome = await run(function("starts"))

    assert 0 < outcome.memory_used < 100 << 20 < len(ballast)


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_version_serves_its_runtime(tmp_path: Path, version: str) -> None:
    await interpreter(version)
    async with pool(tmp_path, SOURCE) as opened:
        source = "import sys\nasync def handler(e, c): return '%d.%d' % sys.version_info[:2]"
        (tmp_path / "code" / "version.py").write_text(source)

        outcome = await opened.execute(function("version.handler", runtime=f"Python{version}"), invocation())

    assert outcome.result.decode() == version
