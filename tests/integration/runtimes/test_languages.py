"""Contract of functions in Python and, where one table holds both, in Node.js, tested on real instances."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.logs.lines import plain
from engine.model import Code, Function, Outcome
from tests.support.executing import function, invocation, pool
from tests.support.instances import value
from tests.support.programs import needs

PYTHON, NODE = "Python3.10", "Node.js18.15"
LANGUAGES = [PYTHON, pytest.param(NODE, marks=needs("node"))]
SOURCE = """
import asyncio, os, sys, threading


def raising_initializer(context):
    raise ValueError("no database")


def leaving_initializer(context):
    sys.exit(1)


def dying_initializer(context):
    os._exit(5)


async def hanging_initializer(context):
    await asyncio.sleep(60)


started = []


def starts(event, context):
    return len(started)


def ask(event, context):
    return {name: getattr(context, name)(*args) for name, args in event}


def named(event, context):
    return {name: getattr(context, name) for name in event} | {"left": context.get_remaining_time_in_millis()}


def data(event, context):
    return [context.getUserData(*args) for args in event]


def environment(event, context):
    return {"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "stdin": sys.stdin.read()}


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
FILES = {
    "index.py": SOURCE,
    "broken.py": "def handler(:",
    "needy.py": "import not_installed",
    "leaving.py": "import sys; sys.exit(0)",
    "index.js": (Path(__file__).parents[2] / "support" / "functions" / "node_contract.js").read_text(),
    "broken.js": "\nconst a = {;",
    "needy.js": "require('not-installed')",
    "late.mjs": "setTimeout(() => { throw new Error('after loading') }); await new Promise(() => {})",
    "leaving.js": "process.exit(4)",
}


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Any]:
    """Return a function that runs a function with one of the files as its code."""
    async with pool(tmp_path, "") as opened:
        for name, text in FILES.items():
            (tmp_path / "code" / name).write_text(text)

        async def run(asked: Function, event: Any = None) -> Outcome:
            return await opened.execute(asked, invocation(json.dumps(event), alias="live"))

        yield run


def both(python: list[Any], node: list[Any]) -> list[Any]:
    """Return the rows of both languages, with the runtime in front of each."""
    return [*((PYTHON, *row) for row in python), *(pytest.param(NODE, *row, marks=needs("node")) for row in node)]


@pytest.mark.parametrize(
    ("runtime", "name", "code", "text"),
    both(
        [
            ("raising_initializer", Code.INITIALIZER_ERROR, "ValueError: no database"),
            ("leaving_initializer", Code.INITIALIZER_ERROR, "SystemExit: 1"),
            ("dying_initializer", Code.INIT_FAILED, "exited with status 5"),
            ("hanging_initializer", Code.INIT_TIMEOUT, "longer than the 1 s"),
            ("absent", Code.ENTRY_NOT_FOUND, "'absent'"),
        ],
        [
            ("raisingInitializer", Code.INITIALIZER_ERROR, "RangeError: no database"),
            ("refusingInitializer", Code.INITIALIZER_ERROR, "Error: no database"),
            ("leavingInitializer", Code.INITIALIZER_ERROR, "process.exit(1) was called"),
            ("dyingInitializer", Code.INIT_FAILED, "killed by SIGKILL"),
            ("absent", Code.ENTRY_NOT_FOUND, "'absent'"),
        ],
    ),
)
async def test_a_failed_initializer_is_an_outcome(run: Any, runtime: str, name: str, code: Code, text: str) -> None:
    fields = {"initializer_handler": f"index.{name}", "initializer_timeout": 1 if code == Code.INIT_TIMEOUT else 60}
    outcome = await run(function("starts", runtime=runtime, **fields))

    assert (outcome.code, text in outcome.message) == (code, True), outcome
    assert code == Code.ENTRY_NOT_FOUND or outcome.message.startswith("function initialization exception, error: ")


@pytest.mark.parametrize(
    ("runtime", "handler", "kind", "text"),
    both(
        [
            ("nofile.handler", "FunctionError", "no file nofile.py"),
            ("index.nohandler", "FunctionError", "no function 'nohandler'"),
            ("index.", "FunctionError", "write file.function"),
            ("index", "FunctionError", "write file.function"),
            (".handler", "FunctionError", "write file.function"),
            ("index.started", "FunctionError", "no function 'started'"),
            ("broken.handler", "SyntaxError", "broken.py, line 1"),
            ("needy.handler", "ModuleNotFoundError", "ModuleNotFoundError: No module named 'not_installed'"),
            ("leaving.handler", "SystemExit", "SystemExit"),
        ],
        [
            ("nofile.handler", "FunctionLoadError", "no file nofile.js"),
            ("broken.handler", "FunctionLoadError", "SyntaxError: Unexpected token"),
            ("needy.handler", "FunctionLoadError", "Cannot find module 'not-installed'"),
            ("late.handler", "Error", "after loading"),
            ("leaving.handler", "Error", "process.exit(4) was called"),
            ("index.nohandler", "FunctionConfigError", "no exported function 'nohandler'"),
            ("index.notAFunction", "FunctionConfigError", "no exported function 'notAFunction'"),
            ("index.four", "FunctionConfigError", "declares 4 parameters, more than the three"),
        ],
    ),
)
async def test_an_entry_that_cannot_be_used_is_4001(run: Any, runtime: str, handler: str, kind: str, text: str) -> None:
    outcome = await run(replace(function("starts", runtime=runtime), handler=handler))

    assert (outcome.code, json.loads(outcome.result)["errorType"]) == (Code.ENTRY_NOT_FOUND, kind)
    assert text in outcome.message
    assert outcome.message.startswith("function entry exception, error: ")


#: Arguments and answers of the methods of a context by name: those of both languages, and those of each.
ANSWERS: dict[str, tuple[list[str], Any]] = {
    "getProjectID": ([], "p"), "getPackage": ([], "default"), "getFunctionName": ([], "ask"),
    "getVersion": ([], "v3"), "getAlias": ([], "live"), "getMemorySize": ([], 512), "getCPUNumber": ([], 600),
    "getRunningTimeInSeconds": ([], 30), "getToken": ([], ""), "getAuthToken": ([], ""), "getAccessKey": ([], ""),
    "getSecretKey": ([], ""), "getSecurityAccessKey": ([], ""), "getSecuritySecretKey": ([], ""),
    "getSecurityToken": ([], ""), "getWorkflowID": ([], ""), "getWorkflowRunID": ([], ""),
    "getWorkflowStateID": ([], ""), "getInvokeProperty": ([], ""),
}  # fmt: skip
OWN: dict[str, dict[str, tuple[list[str], Any]]] = {
    PYTHON: {
        "getUserData": (["a"], "1"), "get_state": ([], None), "set_state": (["s"], None), "get_stream": ([], None),
        "get_invoke_property": (["x"], ""), "get_session_id": ([], ""), "getTenantID": ([], ""),
    },
    NODE: {"getUserData": (["s"], "2"), "getState": ([], None), "getStream": ([], None), "getSessionID": ([], "")},
}  # fmt: skip


@pytest.mark.parametrize("runtime", LANGUAGES)
async def test_the_context_answers_everything_documented(run: Any, runtime: str) -> None:
    fields: Any = {"user_data": {"a": "1"}, "encrypted_user_data": {"s": "2"}, "memory_size": 512, "version": "v3"}
    questions = ANSWERS | OWN[runtime]

    answers = value(
        await run(function("ask", runtime=runtime, **fields), [[n, args] for n, (args, _) in questions.items()])
    )

    assert answers == {name: answer for name, (_, answer) in questions.items()}


#: Names of AWS Lambda and their values, and the names of the request and of its log, by language.
AWS: dict[str, tuple[dict[str, Any], str, str]] = {
    PYTHON: (
        {
            "function_name": "named",
            "function_version": "v3",
            "invoked_function_arn": "arn:aws:lambda:local-1:p:function:named:live",
            "memory_limit_in_mb": 512,
            "log_group_name": "/aws/lambda/named",
            "client_context": None,
            "identity": None,
        },
        "aws_request_id",
        "log_stream_name",
    ),
    NODE: (
        {
            "functionName": "named",
            "functionVersion": "v3",
            "invokedFunctionArn": "arn:aws:lambda:local-1:p:function:named:live",
            "memoryLimitInMB": "512",
            "logGroupName": "/aws/lambda/named",
        },
        "awsRequestId",
        "logStreamName",
    ),
}


@pytest.mark.parametrize("runtime", LANGUAGES)
async def test_the_context_has_the_names_of_aws_lambda(run: Any, runtime: str) -> None:
    expected, request, log = AWS[runtime]
    asked = function("named", runtime=runtime, memory_size=512, version="v3")

    answers = value(await run(asked, [*expected, request, log]))

    assert {name: answers[name] for name in expected} == expected
    assert answers[request].startswith("00000000-")
    assert answers[log].startswith("[v3]")
    assert 20_000 < answers["left"] <= 30_000


@pytest.mark.parametrize(("runtime", "more", "answers"), both([([], [])], [([["toString"], []], [None, {"s": "2"}])]))
async def test_user_data_never_raises(run: Any, runtime: str, more: list[list[str]], answers: list[Any]) -> None:
    asked = function("data", runtime=runtime, encrypted_user_data={"s": "2"})

    given = value(await run(asked, [["s"], ["none"], ["none", "default"], *more]))

    assert given == ["2", None, "default", *answers]


@pytest.mark.parametrize("runtime", LANGUAGES)
async def test_the_environment_is_the_documented_one_and_the_users(
    tmp_path: Path, run: Any, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCTIOND_SECRET", "s3cret")
    variables = {"COLOUR": "red", "bad=name": "x", "PATH": "/mine"}

    seen = value(await run(function("environment", runtime=runtime, user_data=variables)))

    env, code = seen["env"], str(tmp_path / "code")
    assert (env["COLOUR"], env["PATH"], env["LANG"]) == ("red", "/mine", "C.UTF-8")
    assert (env["RUNTIME_FUNC_NAME"], env["RUNTIME_MEMORY"], env["RUNTIME_CPU"]) == ("environment", "128", "300")
    assert json.loads(env["RUNTIME_USERDATA"]) == variables
    assert env["HOME"] == env["TMPDIR"] == str(tmp_path / "tmp" / env["FUNCTIOND_INSTANCE"][:12])
    known = ("RUNTIME_", "PRE_STOP_", "FUNCTIOND_ENGINE", "FUNCTIOND_INSTANCE")
    others = {name for name in env if not name.startswith(known)}
    assert others - {"LC_CTYPE"} == {"PATH", "LANG", "HOME", "TMPDIR", "COLOUR"}
    assert (seen["cwd"], seen["argv"], seen["stdin"]) == (code, [code], "")


@pytest.mark.parametrize("runtime", LANGUAGES)
async def test_the_peak_of_memory_is_the_childs_and_not_the_engines(run: Any, runtime: str) -> None:
    ballast = bytearray(b"x" * (200 << 20))

    outcome = await run(function("starts", runtime=runtime))

    assert 0 < outcome.memory_used < 150 << 20 < len(ballast)


# --- Python only ---


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
