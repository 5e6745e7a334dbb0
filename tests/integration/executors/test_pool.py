"""Choice of the serving instance, eviction of idle ones, and requests when no instance can be started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.executors.allocator import TRIES
from engine.executors.logs import LogBuffer, LogFiles, LogRecorder
from engine.executors.pool import Pool
from engine.isolation.rlimits import RlimitIsolation
from engine.logs.feed import FunctionLines, LogBoard
from engine.logs.lines import plain
from engine.model import Code, Mode, Outcome
from engine.runtimes.catalog import warning_of
from engine.runtimes.interpreters import Interpreters
from tests.support.executing import SOURCE, Running, exit_of, function, invocation, is_alive, output, pid_of, pool
from tests.support.instances import begin, lines
from tests.support.triggering import until

# --- choice of the instance ---


async def test_a_failed_attempt_names_its_instance(opened: Pool) -> None:
    outcome = await opened.execute(function("fail"), invocation())
    assert outcome.instance
    assert outcome.message.endswith(f"ValueError: {outcome.instance}")


@pytest.mark.parametrize("other", [{"revision": 2}, {"function_id": 2}, {"memory_size": 256}, {"version": "v1"}])
async def test_an_instance_serves_one_revision_and_size_of_one_function(opened: Pool, other: dict[str, Any]) -> None:
    assert await pid_of(opened, revision=1) != await pid_of(opened, **({"revision": 1} | other))


async def test_the_memory_an_invocation_chose_counts(opened: Pool) -> None:
    await opened.execute(function("pid"), invocation(memory=512))

    assert opened.statistics().memory == 512


async def test_the_instance_used_last_is_used_first(opened: Pool, tmp_path: Path) -> None:
    first, second = Running(opened, tmp_path), Running(opened, tmp_path)
    pids = [await first.pid(), await second.pid()]
    await second.finish()
    await first.finish()
    third = Running(opened, tmp_path)

    assert await third.pid() == pids[0]
    assert (await third.finish()).ok


async def test_statistics_count_what_is_there(opened: Pool, tmp_path: Path) -> None:
    running, _ = await begin(opened, tmp_path)
    await pid_of(opened)

    seen = opened.statistics()
    assert (seen.busy, seen.idle, seen.starting, seen.memory) == (1, 1, 0, 256)
    assert (seen.started, seen.retired, seen.killed, seen.cold_starts.count) == (2, 0, 0, 2)
    assert (await running.finish()).ok


async def test_lines_of_a_start_without_a_request_are_the_instances_own(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE + '\nprint("loaded")\n') as opened:
        assert await opened.warm(function("pid"))
        living = plain(await opened.instance_log(1))
        await opened.retire(1)
        await until(lambda: not opened.allocator.present)
    left = LogFiles(tmp_path / "logs", 1 << 20).read_instances(1)

    assert (living, plain(left)) == (b"loaded\n", b"loaded\n")


async def test_lines_of_a_failed_start_without_a_request_are_kept(tmp_path: Path) -> None:
    leaving = "\ndef leaving(context):\n    os.write(1, b'leaving')\n    os._exit(3)\n"
    async with pool(tmp_path, SOURCE + leaving) as opened:
        assert not await opened.warm(function("pid", initializer_handler="index.leaving"))
        await until(lambda: not opened.allocator.present)

    assert plain(LogFiles(tmp_path / "logs", 1 << 20).read_instances(1)) == b"leaving\n"


async def test_an_attempt_whose_start_fails_never_begins_and_keeps_the_lines_in_its_log_alone(tmp_path: Path) -> None:
    begins: list[None] = []
    failing = "\ndef failing(context):\n    print('failing')\n    raise RuntimeError\n"
    async with pool(tmp_path, SOURCE + failing) as opened:
        asked = function("pid", initializer_handler="index.failing")
        outcome = await opened.execute(asked, invocation(), lambda: begins.append(None))
        assert begins == []
        await opened.execute(function("pid"), invocation(), lambda: begins.append(None))

    assert begins == [None]
    assert output(outcome) == "failing\n" * TRIES
    assert LogFiles(tmp_path / "logs", 1 << 20).read_instances(1) == b""


SLOW = """
print("loaded")
with open(os.path.join(os.path.dirname(__file__), "gate")) as gate:
    gate.read()


def much(event, context):
    print("x" * (100 << 10))
"""


async def test_a_request_served_by_a_start_without_a_request_has_a_log_of_the_full_size(tmp_path: Path) -> None:
    asked, asked_as = function("much"), invocation(mode=Mode.ASYNC)
    async with pool(tmp_path, SOURCE + SLOW) as opened:
        os.mkfifo(tmp_path / "code" / "gate")
        warming = asyncio.ensure_future(opened.warm(asked))
        await until(lambda: opened.statistics().starting == 1)
        executing = asyncio.ensure_future(opened.execute(asked, asked_as))
        await asyncio.to_thread((tmp_path / "code" / "gate").write_text, "")
        assert (await executing).ok
        assert await warming
        whole = await opened.log(asked_as.function_id, asked_as.request_id, 1)
        own = await opened.instance_log(1)

    assert (len(plain(whole or b"").replace(b"\n", b"")), plain(own)) == (100 << 10, b"loaded\n")
    assert opened.statistics().started == 1


RANDOM_LINE = """

def random_line(context):
    print(os.urandom(8).hex())
    time.sleep(os.urandom(1)[0] / 2000)
"""


async def test_lines_of_starts_are_published_for_the_request_whose_log_has_them(tmp_path: Path) -> None:
    published: dict[str, list[str]] = {}

    def listen(seen: FunctionLines) -> None:
        published.setdefault(seen.request_id, []).extend(line.text for line in seen.lines)

    board, asked = LogBoard(), function("pid", initializer_handler="index.random_line")
    async with pool(tmp_path, SOURCE + RANDOM_LINE, board=board) as opened:
        with board.subscribed(listen):
            asked_as = [invocation() for _ in range(6)]
            outcomes = await asyncio.gather(*(opened.execute(asked, request) for request in asked_as))

    logs = [plain(outcome.log).decode().splitlines() for outcome in outcomes]
    assert any(logs)
    assert logs == [published.get(request.request_id, []) for request in asked_as]


async def test_an_instance_is_closed_although_its_lines_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(recorder: LogRecorder, function_id: int, log_buffer: LogBuffer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(LogRecorder, "keep", refuse)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with pool(tmp_path, SOURCE + '\nprint("loaded")\n') as opened:
        assert await opened.warm(function("pid"))
        await opened.retire(1)
        assert not opened.allocator.present


# --- the warning about a runtime whose language version differs ---

NOTE, RAN = ("engine", warning_of("Python2.7")), ("stdout", "ran")


@pytest.mark.parametrize("warm", [False, True])
async def test_the_first_run_of_an_instance_has_the_warning(opened: Pool, warm: bool) -> None:
    old = function("say", runtime="Python2.7")
    if warm:  # an instance that was started without a request
        assert await opened.warm(old)

    first, second = [await opened.execute(old, invocation('"ran"')) for _ in range(2)]
    between = await opened.instance_log(old.function_id)

    assert (lines(first), lines(second), between) == ([NOTE, RAN], [RAN], b"")


async def test_functions_of_other_runtimes_have_no_warning(opened: Pool) -> None:
    outcome = await opened.execute(function("say", runtime="Python3.6"), invocation('"ran"'))

    assert lines(outcome) == [RAN]


# --- eviction ---


async def test_an_idle_instance_ends_after_its_time(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, idle=0.05) as opened:
        await exit_of(await pid_of(opened))

        assert (opened.statistics().retired, opened.statistics().idle) == (1, 0)


async def test_memory_for_a_new_instance_is_taken_from_the_one_idle_longest(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, memory=256) as opened:
        oldest = await pid_of(opened, revision=1)
        newer = await pid_of(opened, revision=2)
        await pid_of(opened, revision=3)
        await exit_of(oldest)

        assert await pid_of(opened, revision=2) == newer
        assert opened.statistics().memory == 256


async def test_a_lack_of_memory_refuses_nothing(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, memory=64) as opened:
        assert await pid_of(opened) > 0


async def test_retiring_a_function_ends_its_idle_instances_but_those_of_kept_revisions(opened: Pool) -> None:
    old, kept = await pid_of(opened, revision=1), await pid_of(opened, revision=2)
    other = await pid_of(opened, function_id=2, revision=1)

    await opened.retire(1, keep={2})

    assert [is_alive(pid) for pid in (old, kept, other)] == [False, True, True]


async def test_a_closed_pool_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE) as opened:
        running = Running(opened, tmp_path)
        pids = [await running.pid(), await pid_of(opened)]
        running.outcome.cancel()

    assert [is_alive(pid) for pid in pids] == [False, False]
    assert list((tmp_path / "tmp").iterdir()) == []


# --- failed starts ---


async def test_an_interpreter_that_is_not_there_is_the_engines_fault(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, interpreters=Interpreters(python="/no/such/python")) as opened:
        outcome = await opened.execute(function("pid"), invocation())

    assert outcome.code == Code.ENGINE
    assert "the setting executor.python" in outcome.message


async def test_code_that_is_not_there_is_the_engines_fault(opened: Pool, tmp_path: Path) -> None:
    (tmp_path / "code").rename(tmp_path / "gone")

    outcome = await opened.execute(function("pid"), invocation())

    assert outcome.code == Code.ENGINE
    assert str(tmp_path / "code") in outcome.message


# --- other event loops and pools ---


def test_two_pools_live_in_one_process_each_with_a_loop_of_its_own(tmp_path: Path) -> None:
    results: list[bytes] = []

    async def serve(folder: Path) -> None:
        async with pool(folder, SOURCE, isolation=RlimitIsolation()) as opened:
            results.append((await opened.execute(function("say"), invocation('"x"'))).result)

    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    threads = [threading.Thread(target=asyncio.run, args=(serve(folder),)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [b"said", b"said"]


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is the loop in production there")
def test_the_pool_works_on_uvloop(tmp_path: Path) -> None:
    import uvloop

    async def serve() -> tuple[Outcome, Outcome]:
        async with pool(tmp_path, SOURCE) as opened:
            running = Running(opened, tmp_path)
            os.kill(await running.pid(), signal.SIGKILL)
            return await running.outcome, await opened.execute(function("say"), invocation('"x"'))

    killed, said = uvloop.run(serve())

    assert (killed.code, plain(said.log)) == (Code.USER_EXCEPTION, b"x\n")
