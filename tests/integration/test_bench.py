"""Benchmarks in a tiny form against real processes: each measures the quantity it reports.

No figure is compared with a target: timing decides no test.
"""

from __future__ import annotations

import asyncio
import json
import pstats
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import ON_REQUEST, SCENARIOS, find, main
from bench.attack import Attack, RefusedUpload, Report
from bench.filling import FILLING, filled
from bench.harness import Figure, Measured, Options, run, summarise
from bench.hostile import attack, beside, worst_lag
from bench.intake import SOURCES
from bench.load import Job, Load, percentiles
from bench.machine import cpu_of, wakeups
from bench.recovery import check_backlog
from bench.server import NOOP, ServerFailed, engine, load, starlette
from bench.soak import SCENARIO as SOAK

pytestmark = pytest.mark.long

HELD_BACK = 0.3  #: seconds


def measure(name: str, directory: Path, scale: float = 0.001) -> dict[str, Measured]:
    options = Options(seconds=0.2, rounds=1, scale=scale, directory=str(directory))
    return {measured.name: measured for measured in run(find(name), options, lambda message: None)}


# --- scenarios ----------------------------------------------------------------------------------------------


#: Scale by scenario, and chains of figures, each at most as large as the next; a number bounds the figures behind it.
CHAINS: dict[str, tuple[float, list[list[str | float]]]] = {
    "accept": (0.001, [["accept 1"], ["accept 16"], ["accept 64"], ["accept 256"], ["engine loop"]]),
    "accept_batch": (0.001, [["engine loop 100"], ["engine loop 1,000"], ["decode 6 MiB"]]),
    "calls": (0.001, [["queued by runs"], ["plain"], ["members"], ["results by the client"]]),
    "groups": (0.002, [[20, "kills"], [1, "ids of continuations that ran", 1, "runs of the continuation"]]),
    "children": (0.01, [[10, "kills"], [1000, "children", 1000, "runs of children"], [10, "runs of parents"]]),
    "status_log": (0.001, []),
    "forward": (0.001, []),
    "end_to_end": (0.001, [["end to end", "accepted"], ["children"]]),
    "latency": (0.001, [["requests"], ["start p50", "start p99", "start worst"]]),
    "recovery": (
        0.02,
        [["first 202"], ["first run"], ["first 202 after kill -9"], ["first run after kill -9"], [10_001, "queued"]],
    ),
    "backup": (
        0.001,
        [[10, "copied"], ["p50 beside", "p99 beside", "worst beside"], ["p99"], ["log"], ["longest step"], ["rate"]],
    ),
    "purge": (0.005, [[5000, "purged", 5000], ["p50 beside", "p99 beside", "worst beside"]]),
    "backlog": (
        0.001,
        [
            [f"{kind} {length}"]
            for kind in ("pop", "memory", "drain")
            for length in ("1,000", "10,000", "100,000", "1,000,000")
        ],
    ),
    "idle": (0.001, [[1, "memory"]]),
    "cold_start": (0.001, [["spawn p50", "spawn p95"], ["fork p50", "fork p95"]]),
    "dispatch": (0.001, [["round trip p50", "round trip p99"], ["one after another"]]),
    "fairness": (0.0001, [["solo p50, queued", "solo p99, queued"], ["p50, long runs", "p99, long runs"]]),
    "web": (0.01, [["web, p50", "web, p95"], ["bare, p50"], [1, "processes"], [200, "answered at once"]]),
    "nodes": (0.001, [["start p50", "start p95"], ["1 node"], ["call, pipe"], ["call, node"], ["call, 50 nodes"]]),
}
#: Two figures of the same run and the end of their names, by scenario. Their ratio is a figure, too.
RATIOS = {
    "accept": [("accept", "starlette", " 64")],
    "accept_batch": [("accept_batch", "SQLite alone", " 100"), ("accept_batch", "SQLite alone", " 1,000")],
    "status_log": [("with", "without", "")],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_scenario_measures_its_figures_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    scale, chains = CHAINS[name]

    figures = measure(name, tmp_path, scale)

    for chain in chains:
        values = [figures[figure].median if isinstance(figure, str) else figure for figure in chain]
        assert values == sorted(values), chain
        assert values[0] > 0, chain
    for upper, lower, end in RATIOS.get(name, ()):
        ratio = figures[f"{upper}{end}"].median / figures[f"{lower}{end}"].median
        assert figures[f"{upper} / {lower}{end}"].median == pytest.approx(ratio)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["silent", "slow heads", "TLS pipelines"])
def test_hostile_clients_and_an_ordinary_one_are_measured(tmp_path: Path, kind: str) -> None:
    memory, service, _ = attack(kind, 1, Options(seconds=0.2, directory=str(tmp_path)))

    assert memory > 1
    assert service.answered > 0
    assert 0 < service.latency.p50 <= service.latency.p99


def lag(name: str, options: Options) -> dict[str, float]:
    return {"lag": worst_lag(name, options)}


#: Measures by name, each with the number of its figures.
MEASURES: dict[str, tuple[Callable[[Options], dict[str, float]], int]] = {
    **{f"work beside {name} of another project": (partial(filled, name), 3) for name in FILLING},
    **{
        f"the lag of the loop at {name}": (partial(lag, name), 1)
        for name in ("nulls", "list of functions", "log lines")
    },
    "a client beside a wide input": (partial(beside, "invalid batch"), 3),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_quantity_is_measured(tmp_path: Path, name: str) -> None:
    measures, figures = MEASURES[name]

    results = measures(Options(seconds=0.3, scale=0.01, directory=str(tmp_path)))

    assert len(results) == figures
    assert all(value > 0 for value in results.values())


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_is_measured(tmp_path: Path, name: str) -> None:
    if why := SOURCES[name].absent():
        pytest.skip(f"no {name}: {why}")

    figures = SOURCES[name].measure(Options(seconds=0.2, scale=0.01, directory=str(tmp_path)))

    assert set(figures) == {figure.name for figure in SOURCES[name].figures}
    assert all(value > 0 for value in figures.values())


def test_an_engine_under_mixed_load_leaves_nothing_behind(tmp_path: Path) -> None:
    options = Options(seconds=12.0, rounds=1, directory=str(tmp_path))

    medians = {result.name: result.median for result in run(SOAK, options, print)}

    assert medians["accepted"] > 0
    assert medians["kills"] > 0
    assert medians["memory growth"] < 50.0  # percent; the caches of the engine still fill
    assert medians["descriptors before"] > 0
    zero = ("not ended", "processes left", "control groups left", "temporary files left")
    assert {name: medians[name] for name in zero if medians[name]} == {}
    assert medians["descriptors more"] <= 0


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_figures_machine_and_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [f"--json={tmp_path / 'all.json'}", f"--profile={tmp_path / 'engine.pstats'}", f"--directory={tmp_path}"]
    code = main(["end_to_end", "--seconds=0.1", "--rounds=2", "--scale=0.1", *places])

    written = json.loads((tmp_path / "all.json").read_text())
    assert code == 0
    assert written["machine"]["fsync_ms"] > 0
    assert len(written["scenarios"]["end_to_end"][0]["values"]) == 2
    assert "profile kept in" in capsys.readouterr().out
    profiled = pstats.Stats(str(tmp_path / "engine.pstats")).stats  # type: ignore[attr-defined]  # missing in its stubs
    assert any(file.endswith("runqueue.py") and name == "pop" for file, _, name in profiled)


def test_every_scenario_can_be_found() -> None:
    names = [*SCENARIOS, *ON_REQUEST]

    assert [find(name).name for name in names] == names


# --- figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "met"), [({"at_most": 2}, True), ({"at_least": 5}, False)])
def test_a_figure_is_the_median_of_its_rounds_and_meets_or_misses_its_target(target: dict[str, Any], met: bool) -> None:
    [found] = summarise([Figure(name="a", unit="s", **target)], [{"a": 1.0}, {"a": 9.0}, {"a": 2.0}])

    assert (found.median, found.lowest, found.highest, found.met) == (2.0, 1.0, 9.0, met)


def test_a_figure_that_nobody_declared_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="b"):
        summarise([Figure(name="a", unit="s")], [{"a": 1.0, "b": 1.0}])


def test_percentiles_are_of_the_sorted_values() -> None:
    result = percentiles(array("d", [i / 1000 for i in range(100, 0, -1)]))

    assert (result.p50, result.p99, result.worst) == pytest.approx((51.0, 100.0, 100.0))


def test_wake_ups_and_processor_time_grow_with_work(tmp_path: Path) -> None:
    with engine(tmp_path) as server:
        woken, used = wakeups(server.pid), cpu_of(server.pid)
        load(Job(port=server.port, path=server.deploy("noop", NOOP) + "/invocations-async", body="{}", count=20))

        assert wakeups(server.pid) > woken
        assert cpu_of(server.pid).since(used).loop > 0
        assert cpu_of(server.pid).since(used).threads > 0


def test_a_start_on_less_than_the_backlog_is_no_figure(tmp_path: Path) -> None:
    with engine(tmp_path) as server, pytest.raises(ServerFailed, match="of 50"):
        check_backlog(server, 50)


# --- the load generator -------------------------------------------------------------------------------------


def test_a_count_is_sent_exactly() -> None:
    with starlette() as server:
        report = load(Job(port=server.port, path="/", body="{}", connections=3, count=20))

    assert (report.requests, report.statuses) == (20, {202: 20})


def test_a_refused_request_is_a_failure_not_a_figure(tmp_path: Path) -> None:
    with engine(tmp_path) as server, pytest.raises(ServerFailed, match="404"):
        load(Job(port=server.port, path="/nowhere", body="{}", connections=1, count=1))


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in (b"HTTP/1.1 202 ", b"Accepted\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)

    async with answering(answer) as port:
        report = await Load(Job(port=port, path="/", body="{}", connections=1, count=3)).run()

    assert (report.statuses, report.last) == ({202: 3}, ["abcd"])


async def test_requests_that_a_stall_held_back_count_from_when_they_were_due() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(max(0.0, began + HELD_BACK - time.perf_counter()))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async with answering(answer) as port:
        load = Load(Job(port=port, path="/", body="{}", connections=1, rate=200, seconds=HELD_BACK / 3))
        began = time.perf_counter()
        report = await load.run()

    # Every request was due long before the stall ended; the second was sent only then.
    assert report.requests > 1
    assert report.latency.p50 > 1000 * (HELD_BACK - HELD_BACK / 3 - report.began + began)


# --- hostile clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [True, False])
async def test_an_upload_is_refused_only_if_its_client_has_read_the_status(answers: bool) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answers:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
            writer.close()
        else:
            await reader.read(1)
            writer.transport.abort()

    report, ended = Report(), asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        attack = Attack(kind="refused uploads", port=port, path="/", connections=1, seconds=1)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: RefusedUpload(attack, report, ended.set), "127.0.0.1", port)
        await ended.wait()

    assert (report.refused, report.lost) == (int(answers), int(not answers))


@asynccontextmanager
async def answering(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve one connection with ``answer`` for each request, and yield the port.

    Leave when the connection has ended.
    """
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            await answer(writer)
        writer.close()
        await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await over.wait()
