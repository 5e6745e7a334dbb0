"""Runtime contract of Node.js functions, tested on real instances."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.executors.local.choice import IsolationOptions
from engine.executors.logs import log_file
from engine.executors.pool import Pool, PoolOptions, open_pool
from engine.isolation.rlimits import RlimitIsolation
from engine.logs.lines import decode
from engine.model import Code, CodePackage, Dependency, Function, Outcome
from tests.integration.executors.test_template import ready
from tests.support.executing import function, invocation, marker, pool
from tests.support.instances import lines, value
from tests.support.programs import needs

pytestmark = [
    needs("node"),
    pytest.mark.asyncio(loop_scope="module"),
]

SOURCE = (Path(__file__).parents[2] / "support" / "functions" / "node_contract.js").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(folder: Path) -> AsyncIterator[Pool]:
    """Open one pool for all tests. Each test uses its own functions and therefore its own instances."""
    async with pool(folder, "", memory=1024) as opened:
        write(folder, "index.js", SOURCE)
        yield opened


@pytest.fixture
def run(opened: Pool) -> Any:
    async def run(asked: Function, event: Any = None) -> Outcome:
        return await opened.execute(asked, invocation(json.dumps(event), alias="live"))

    return run


def node(handler: str, **fields: Any) -> Function:
    return function(handler, **{"runtime": "Node.js18.15", **fields})


def write(folder: Path, path: str, text: str) -> None:
    file = folder / "code" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# --- handlers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["echo", "plain", "back", "both", "one", "none", "rest", "optional"])
async def test_every_shape_of_handler_answers_with_what_it_gives(run: Any, handler: str) -> None:
    outcomes = [await run(node(handler), event) for event in ({"a": ["é", 1.5, None]}, "text", 7)]

    assert [outcome.result.decode() for outcome in outcomes] == ['{"a":["é",1.5,null]}', "text", "7"]


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        ("twice", b"first"),
        ("thenable", b"thenable"),
        ("self", b"true"),
        ("nothing", b""),
        ("nil", b""),
        ("date", b'"1970-01-01T00:00:00.000Z"'),
        ("handled", b"seen to"),
        ("terminatedGently", b"tidied up"),
    ],
)
async def test_what_a_handler_gives_is_the_result(run: Any, handler: str, result: bytes) -> None:
    outcome = await run(node(handler))

    assert (outcome.code, outcome.result) == (Code.OK, result), outcome


@pytest.mark.parametrize(
    ("path", "source", "handler"),
    [
        ("src/deep/a.js", "exports.go = async (e, c) => 'ok'", "src/deep/a.go"),
        ("b.cjs", "module.exports = { go: async (e, c) => 'ok' }", "b.go"),
        ("c.mjs", "await null; export async function go(e, c) { return 'ok' }", "c.go"),
        ("d.mjs", "export default { go: async (e, c) => 'ok' }", "d.go"),
        ("e.min.js", "exports.go = async (e, c) => 'ok'", "e.min.go"),
        ("esm/f.js", "import { sep } from 'node:path'; export const go = async (e, c) => sep && 'ok'", "esm/f.go"),
        ("g.js", "exports.go = async (e, c) => require.main !== module && require.main.filename && 'ok'", "g.go"),
    ],
)
async def test_modules_of_both_kinds_are_loaded(folder: Path, run: Any, path: str, source: str, handler: str) -> None:
    write(folder, "esm/package.json", '{"type": "module"}')
    write(folder, path, source)

    assert (await run(node(handler))).result == b"ok"


@pytest.mark.parametrize("handler", ["m.go", "n.go"])
async def test_packages_lie_beside_the_code_or_in_dependencies(tmp_path: Path, handler: str) -> None:
    packages = {"near": "code/node_modules", "far": "layer/node_modules", "aws": "layer/nodejs/node_modules"}
    for name, folder in packages.items():
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "index.js").write_text(f"module.exports = '{name}'")
    write(tmp_path, "m.js", "exports.go = async (e, c) => ['near', 'far', 'aws'].map((name) => require(name)).join()")
    imports = "".join(f"import {name} from '{name}'; " for name in packages)
    write(tmp_path, "n.mjs", imports + "export const go = async (e, c) => [near, far, aws].join()")
    layer = CodePackage(sha256="1", digest="", size=1)
    dependency = Dependency(
        id="1", dep_id="1", project="p", name="d", version=1, runtime="Node.js18.15", code=layer, etag=""
    )

    options = PoolOptions(tmp=tmp_path / "tmp", log_dir=tmp_path / "logs", marker=marker(tmp_path))
    async with open_pool(
        options, code_path=lambda package: tmp_path / ("layer" if package == layer else "code")
    ) as opened:
        outcome = await opened.execute(node(handler, dependencies=(dependency,)), invocation())

    assert outcome.result == b"near,far,aws", outcome


# --- hooks ------------------------------------------------------------------------------------------------------


async def test_an_initializer_may_call_back_or_return_a_promise(run: Any) -> None:
    names = ("initializer", "asyncInitializer")
    calling, promising = (node("starts", initializer_handler=f"index.{name}") for name in names)

    assert (value(await run(calling)), 280 < value(await run(promising)) <= 300) == (1, True)


async def test_what_the_initializer_prints_is_the_first_requests(run: Any) -> None:
    asked = node("starts", initializer_handler="index.initializer", revision=7)

    outcomes = [await run(asked) for _ in range(2)]

    assert [lines(outcome) for outcome in outcomes] == [[("stdout", "initialized starts")], []]


async def test_the_pre_stop_handler_has_the_last_word(tmp_path: Path, opened: Pool) -> None:
    stopped = tmp_path / "stopped"
    asked = node("echo", pre_stop_handler="index.stopped", pre_stop_timeout=60, user_data={"STOPPED": str(stopped)})
    await opened.execute(asked, invocation())

    await opened.retire(asked.function_id)

    assert stopped.read_text() == "stopped"


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        ("raising", Code.USER_EXCEPTION, "TypeError: not so"),
        ("throwing", Code.USER_EXCEPTION, "TypeError: not so"),
        ("refusing", Code.USER_EXCEPTION, "SyntaxError: refused"),
        ("string", Code.USER_EXCEPTION, "error: only text"),
        ("hostile", Code.USER_EXCEPTION, "cannot be described"),
        ("timer", Code.USER_EXCEPTION, "TypeError: in a timer"),
        ("rejection", Code.USER_EXCEPTION, "TypeError: nobody waits"),
        ("exiting", Code.USER_EXCEPTION, "process.exit(3) was called"),
        ("aborting", Code.USER_EXCEPTION, "killed by SIGABRT"),
        ("terminated", Code.USER_EXCEPTION, "killed by SIGTERM"),
        ("garbling", Code.USER_EXCEPTION, "the code wrote to the engine's socket"),
        ("circular", Code.BAD_RESULT, "circular structure"),
        ("bigint", Code.BAD_RESULT, "BigInt"),
        ("aFunction", Code.BAD_RESULT, "a function cannot be turned into JSON"),
        ("full", Code.DISK_FULL, "ENOSPC"),
        ("greedy", Code.OUT_OF_MEMORY, "Array buffer allocation failed"),
        ("allocating", Code.OUT_OF_MEMORY, "memory"),
    ],
)
async def test_bad_behaviour_is_an_outcome(run: Any, handler: str, code: Code, text: str) -> None:
    outcome = await run(node(handler))

    assert (outcome.code, text in outcome.message) == (code, True), outcome


async def test_the_heap_is_bounded_where_nothing_else_bounds_it(tmp_path: Path) -> None:
    async with pool(tmp_path, "", isolation=RlimitIsolation()) as opened:
        write(tmp_path, "index.js", SOURCE)
        outcome = await opened.execute(node("allocating"), invocation())

    assert (outcome.code, outcome.message) == (Code.OUT_OF_MEMORY, "the function used more than its 128 MB of memory")


async def test_an_error_shows_the_frames_of_user_code_and_no_others(folder: Path, run: Any) -> None:
    outcome = await run(node("raising"))

    body = json.loads(outcome.result)
    assert (body["errorMessage"], body["errorType"]) == ("not so", "TypeError")  # the name that it inherits
    assert body["errorClasses"] == ["Gone", "TypeError"]
    assert [frame.split(" (")[0] for frame in body["stackTrace"]] == ["at inner", "at exports.raising"]
    assert f"{folder}/code/index.js:" in body["stackTrace"][0]
    assert outcome.result.decode() == json.dumps(body, indent=4)


async def test_what_nobody_caught_ends_the_instance_after_the_answer(run: Any) -> None:
    asked = node("restless")
    first = value(await run(asked, "ask"))

    failed = await run(asked, "throw")

    assert failed.code == Code.USER_EXCEPTION
    assert value(await run(asked, "ask")) != first


async def test_a_large_event_arrives_whole(run: Any) -> None:
    event = ["é" * 1_000_000, list(range(200_000))]

    assert value(await run(node("echo"), event)) == event


async def test_programs_that_it_starts_do_not_inherit_the_socket(tmp_path: Path) -> None:
    high = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]  # Node.js closes low descriptors only
    async with pool(tmp_path, "", sandbox=IsolationOptions(isolation="process", fork_server="start")) as opened:
        write(tmp_path, "index.js", SOURCE)
        await ready(opened)
        outcome = await opened.execute(node("descriptors"), invocation())
    for fd in high:
        os.close(fd)

    assert value(outcome) == 0


# --- logs -------------------------------------------------------------------------------------------------------


async def test_logger_lines_carry_time_request_and_level(run: Any) -> None:
    outcome = await run(node("log"))

    logged = [text.split(" ", 3) for stream, text in lines(outcome) if stream == "logger"]
    assert [(level, text) for _, _, level, text in logged] == [
        ("INFO", "count 1 of two { three: 3 }"), ("DEBUG", "quiet"), ("WARN", "loud"), ("ERROR", "1 0 [ 1 ]"),
    ]  # fmt: skip
    assert all(stamp.endswith("Z") and len(request) == 36 for stamp, request, _, _ in logged)


async def test_each_line_has_its_stream(run: Any) -> None:
    outcome = await run(node("print"))

    assert sorted(lines(outcome)) == [
        ("stderr", "to stderr"), ("stderr", "é"), ("stdout", "a part, and the rest"), ("stdout", "x is 1"),
    ]  # fmt: skip


async def test_a_line_that_is_too_long_is_split_between_characters(folder: Path, opened: Pool) -> None:
    asked = invocation()
    await opened.execute(node("long"), asked)

    texts = [line.text for line in decode(log_file(folder / "logs", asked.function_id, asked.request_id).read_bytes())]
    assert "".join(texts) == "é" * 100_000
    assert len(texts) > 3


async def test_more_lines_than_a_socket_holds_come_whole_and_in_order(folder: Path, opened: Pool) -> None:
    asked = invocation("5000")
    await opened.execute(node("flood"), asked)

    texts = [line.text for line in decode(log_file(folder / "logs", asked.function_id, asked.request_id).read_bytes())]
    assert texts == [f"{number} {'x' * 100}" for number in range(5000)]


async def test_the_last_output_and_a_closed_stream_are_not_lost(run: Any) -> None:
    assert lines(await run(node("exiting"))) == [("stdout", "before exit")]
    assert lines(await run(node("closing"))) == [("stdout", "ended"), ("stdout", "still here")]


async def test_what_a_thread_prints_belongs_to_the_request_that_started_it(run: Any) -> None:
    assert lines(await run(node("thread"))) == [("stdout", "from a thread")]


async def test_what_a_program_prints_belongs_to_the_request_that_started_it(run: Any) -> None:
    assert sorted(lines(await run(node("shell")))) == [("stderr", "raw error"), ("stdout", "raw")]


async def test_a_line_after_the_answer_is_not_the_next_requests(run: Any) -> None:
    asked = node("late")

    first, second = await run(asked, "leave"), await run(asked, "wait")

    assert (lines(first), lines(second)) == ([], [("stdout", "own")])


# --- several requests at once -----------------------------------------------------------------------------------


async def test_requests_of_one_instance_overlap_and_keep_their_lines(run: Any) -> None:
    asked = node("meet", concurrent_num=3)

    events = [{"name": name, "others": 3, "fails": name == "b"} for name in "abc"]
    outcomes = await asyncio.gather(*(run(asked, event) for event in events))

    assert [outcome.code for outcome in outcomes] == [Code.OK, Code.USER_EXCEPTION, Code.OK]
    seen = [[(stream, text.split(" INFO ")[-1]) for stream, text in lines(outcome)] for outcome in outcomes]
    assert seen == [
        [("stdout", f"begins {name}"), ("logger", f"waits {name}"), ("stderr", f"ends {name}")] for name in "abc"
    ]


async def test_an_error_that_nobody_caught_fails_the_request_that_caused_it(run: Any) -> None:
    asked = node("meetToThrow", concurrent_num=2)

    outcomes = await asyncio.gather(*(run(asked, {"name": name, "throws": name == "b"}) for name in "ab"))

    assert [(outcome.code, outcome.result) for outcome in outcomes[:1]] == [(Code.OK, b"a")]
    assert (outcomes[1].code, "Error: b" in outcomes[1].message) == (Code.USER_EXCEPTION, True)


# --- end --------------------------------------------------------------------------------------------------


async def test_an_endless_function_times_out_with_its_lines(run: Any, opened: Pool) -> None:
    await opened.warm(node("endless", revision=1))
    outcome = await run(node("endless", timeout=2, revision=1))

    assert (outcome.code, lines(outcome)) == (Code.TIMEOUT, [("stdout", "so far")])
