"""Contract of runtime families, tested on real instances of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool
from engine.logs.lines import decode
from engine.model import Code, Outcome
from engine.model.retry_rules import read_error
from engine.runtimes.protocol import RESULT_LIMIT
from tests.contracts.dialect import Dialect
from tests.contracts.dialect_bootstrap import CUSTOM, HTTP, LAMBDA
from tests.contracts.dialect_node import NODE
from tests.contracts.dialect_python import PYTHON
from tests.support.executing import pool
from tests.support.programs import needs

DIALECTS = (PYTHON, NODE, CUSTOM, LAMBDA, HTTP)
SANDBOXED = IsolationOptions(isolation="bubblewrap")


def families(*deeds: str) -> list[Any]:
    """Return parameters for the families that support all these actions; Python with every kind of start."""
    able = [
        pytest.param((dialect, NO_ISOLATION), marks=_programs(dialect), id=dialect.runtime)
        for dialect in DIALECTS
        if not dialect.lacks.intersection(deeds)
    ]
    sandboxed = pytest.param((PYTHON, SANDBOXED), marks=needs("bwrap"), id="sandboxed Python")
    return [*able, pytest.param((PYTHON, IsolationOptions(isolation="process")), id="forked Python"), sandboxed]


def _programs(dialect: Dialect) -> Sequence[pytest.MarkDecorator]:
    return [needs("node")] if dialect is NODE else []


def able_to(*deeds: str) -> pytest.MarkDecorator:
    """Run a test only with the families that support these actions."""
    return pytest.mark.parametrize("run", families(*deeds), indirect=True)


class Runner:
    """Function of one family in a pool of its own."""

    def __init__(self, opened: Pool, dialect: Dialect) -> None:
        self.pool, self.dialect = opened, dialect

    async def __call__(self, do: str, value: Any = None, **fields: Any) -> Outcome:
        assert do not in self.dialect.lacks
        return await self.pool.execute(self.dialect.function(**fields), self.dialect.wish(do, value))

    async def give(self, do: str, value: Any = None, **fields: Any) -> str:
        return self.dialect.given(await self(do, value, **fields))


@pytest.fixture(params=families())
async def run(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runner]:
    dialect, sandbox = request.param
    async with pool(tmp_path, "", sandbox=sandbox) as opened:
        if dialect is HTTP and opened.walls["http_network"] == "unavailable":
            pytest.skip("the kernel has no notification of bind")
        dialect.write(tmp_path / "code")
        yield Runner(opened, dialect)


@pytest.mark.parametrize("value", [{"a": [1, None, "é"]}, [1.5, True], 7, False, {}])
async def test_an_event_in_json_can_be_the_result(run: Runner, value: Any) -> None:
    assert json.loads(await run.give("echo", value)) == value


@pytest.mark.parametrize(("do", "result"), [("text", "straße ✓"), ("nothing", "")])
async def test_text_goes_out_untouched_and_nothing_as_nothing(run: Runner, do: str, result: str) -> None:
    assert await run.give(do) == result


async def test_an_instance_serves_one_request_after_another(run: Runner) -> None:
    assert await run.give("pid") == await run.give("pid")


@able_to("fail")
async def test_a_failure_has_the_documented_form(run: Runner) -> None:
    outcome = await run("fail")

    body = json.loads(outcome.result)
    assert (outcome.code, "no order" in outcome.message) == (Code.USER_EXCEPTION, True)
    assert list(body) == ["errorMessage", "errorType", "stackTrace"]
    assert ("no order" in body["errorMessage"], bool(body["errorType"])) == (True, True)
    assert outcome.result.startswith(b'{\n    "errorMessage"')
    assert all(isinstance(line, str) for line in body["stackTrace"])
    error = [line.text for line in decode(outcome.log) if line.stream == "error"]
    assert error[0].endswith(f" failed with 4002: {outcome.message}")
    assert [line.strip() for line in error[1:]] == [
        line.strip() for frame in body["stackTrace"] for line in frame.splitlines()
    ]


@able_to("ask")
async def test_an_error_may_say_whether_and_when_to_retry(run: Runner) -> None:
    asked = {"retry_after": 7.5}, {"retryable": False}, {"retry_after": -1, "retryable": True}, {"retry_after": "7"}
    outcomes = [await run("ask", said) for said in asked]

    errors = [read_error(outcome.message, outcome.result) for outcome in outcomes]
    assert [error.retry_after for error in errors] == [7.5, None, None, None]
    assert [error.retryable for error in errors] == [True, False, True, True]
    assert {error.message for error in errors} == {"no order"}
    assert [list(json.loads(outcome.result))[3:] for outcome in outcomes] == [["retryAfter"], ["retryable"], [], []]


@able_to("fail")
async def test_a_failure_costs_nothing_but_the_request(run: Runner) -> None:
    before = await run.give("pid")
    await run("fail")

    assert await run.give("pid") == before


@able_to("large")
async def test_results_have_a_limit(run: Runner) -> None:
    outcome = await run("large", RESULT_LIMIT + 1)

    assert outcome.code == Code.RESPONSE_TOO_LARGE
    assert str(RESULT_LIMIT) in outcome.message


@able_to("large")
async def test_the_largest_result_comes_whole(run: Runner) -> None:
    assert len(await run.give("large", RESULT_LIMIT - 4096)) == RESULT_LIMIT - 4096


@able_to("bad")
async def test_a_value_that_is_no_json_is_no_result(run: Runner) -> None:
    outcome = await run("bad")

    assert outcome.code == Code.BAD_RESULT
    assert outcome.message.startswith("function result is invalid, error: ")


async def test_a_request_that_takes_too_long_is_ended_with_its_instance(run: Runner) -> None:
    before = await run.give("pid", revision=1)
    outcome = await run("hang", timeout=1, revision=1)

    assert (outcome.code, "1 s" in outcome.message) == (Code.TIMEOUT, True)
    assert await run.give("pid", revision=1) != before


async def test_a_request_can_be_cancelled_with_its_instance(run: Runner) -> None:
    before = await run.give("pid")
    wish = run.dialect.wish("hang")
    running = asyncio.ensure_future(run.pool.execute(run.dialect.function(), wish))
    await asyncio.sleep(0)

    assert run.pool.cancel(wish.key)
    assert (await running).code == Code.CANCELLED
    assert await run.give("pid") != before


async def test_an_instance_that_leaves_fails_its_request_only(run: Runner) -> None:
    outcome = await run("leave")

    assert outcome.code == Code.USER_EXCEPTION
    assert outcome.message.startswith("function invocation exception, error: ")
    assert json.loads(await run.give("echo", 1)) == 1


async def test_lines_belong_to_the_request_that_wrote_them(run: Runner) -> None:
    outcomes = [await run("say", word) for word in ("eins", "zwei", "ünf")]

    logs = [{(line.stream, line.text) for line in decode(outcome.log)} for outcome in outcomes]
    assert logs == [{("stdout", word), ("stderr", "! " + word)} for word in ("eins", "zwei", "ünf")]


async def test_a_function_knows_its_request(run: Runner) -> None:
    wish = run.dialect.wish("who")

    outcome = await run.pool.execute(run.dialect.function(), wish)

    assert run.dialect.given(outcome) == wish.request_id


async def test_a_function_knows_its_variables(run: Runner) -> None:
    fields = {"user_data": {"COLOUR": "rot"}, "encrypted_user_data": {"SECRET": "geheim"}}

    assert [await run.give("data", name, **fields) for name in ("COLOUR", "SECRET")] == ["rot", "geheim"]


async def test_the_initializer_runs_once_before_the_first_event(run: Runner) -> None:
    fields = {"initializer_handler": run.dialect.initializer}

    assert [await run.give("initialised", **fields) for _ in range(2)] == ["1", "1"]


@able_to("meet")
async def test_requests_of_one_instance_overlap_where_the_function_allows_it(run: Runner) -> None:
    before = run.pool.statistics().started
    both = await asyncio.gather(*(run("meet", 2, concurrent_num=2, timeout=60) for _ in range(2)))

    assert [outcome.code for outcome in both] == [Code.OK, Code.OK]
    assert run.pool.statistics().started == before + 1


@pytest.mark.parametrize(
    "run",
    [
        pytest.param((dialect, SANDBOXED), marks=[needs("bwrap"), *_programs(dialect)], id=dialect.runtime)
        for dialect in DIALECTS
        if dialect is not PYTHON
    ],
    indirect=True,
)
async def test_each_runtime_works_in_a_sandbox(run: Runner) -> None:
    assert json.loads(await run.give("echo", {"a": "é"})) == {"a": "é"}
    assert await run.give("data", "COLOUR", user_data={"COLOUR": "rot"}) == "rot"
    assert {(line.stream, line.text) for line in decode((await run("say", "eins")).log)} == {
        ("stdout", "eins"),
        ("stderr", "! eins"),
    }

    first = await run.give("pid")
    wish = run.dialect.wish("hang")
    running = asyncio.ensure_future(run.pool.execute(run.dialect.function(), wish))
    await asyncio.sleep(0)
    assert run.pool.cancel(wish.key)
    assert (await running).code == Code.CANCELLED
    second = await run.give("pid")
    assert (await run("leave")).code == Code.USER_EXCEPTION
    assert len({first, second, await run.give("pid")}) == 3
