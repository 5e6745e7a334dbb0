"""API, command, page, metrics and readiness of the nodes, with a double of the nodes behind them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from engine.app.lifecycle import _nodes_options, _pool_options
from engine.cli import doctor
from engine.cli.commands import run
from engine.config.settings import load_settings
from engine.http.console.paths import HOME
from engine.protocols.audit import Trace
from tests.doubles.nodes import PROBLEM, FixedNodes
from tests.support.console import form_token
from tests.support.http_app import PROJECT, Api
from tests.support.triggering import House, api_client, house

NODES = f"/v2/{PROJECT}/fgs/nodes"
PAGE = f"{HOME}projects/{PROJECT}/nodes"


@asynccontextmanager
async def console(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    async with house(folder) as place:
        place.engine.pool.nodes = FixedNodes()  # type: ignore[assignment]
        async with api_client(place) as client:
            yield place, client


async def functiond(client: httpx.AsyncClient, *arguments: str) -> int:
    options = ("--url", str(client.base_url), "--project", PROJECT)
    return await anyio.to_thread.run_sync(partial(run, ["nodes", *arguments, *options]))


async def test_nodes_are_listed_and_drained_with_an_audit_trace(place: House, client: httpx.AsyncClient) -> None:
    traces: list[Trace] = []
    with place.engine.audit.subscribed(traces.append):
        listed = await client.get(NODES)
        drained = await client.post(f"{NODES}/big/drain")
        lost = await client.post(f"{NODES}/small/drain")
        unknown = await client.post(f"{NODES}/none/drain")

    assert [reply.status_code for reply in (listed, drained, lost, unknown)] == [200, 200, 409, 404]
    assert listed.json()["nodes"][0]["labels"] == ["gpu", "eu"]
    assert listed.json()["waiting"][0]["functions"] == ["shop/train"]
    assert "the node small cannot be drained: it is lost" in lost.json()["error_msg"]
    assert "no node none: see `functiond nodes`" in unknown.json()["error_msg"]
    assert [(trace.operation, trace.resource_type, trace.resource_name, trace.code) for trace in traces] == [
        ("DrainNode", "node", "big", 200),
        ("DrainNode", "node", "small", 409),
        ("DrainNode", "node", "none", 404),
    ]


async def test_an_engine_without_nodes_tells_how_to_get_some_and_shows_nothing_of_them(
    api: Api, tmp_path: Path
) -> None:
    reply = await api.send("GET", NODES, base="")
    async with house(tmp_path / "without") as place, api_client(place) as client:
        page, start = await client.get(PAGE), await client.get(HOME)
        metrics, ready = await client.get("/metrics"), await client.get("/readyz")

    assert (reply.status, "[executor.nodes]" in reply.json["error_msg"]) == (404, True)
    assert (page.status_code, "/nodes" in start.text) == (404, False)
    assert ("functiond_node" in metrics.text, "functiond_grant" in metrics.text) == (False, False)
    assert "nodes" not in ready.json()


async def test_nodes_take_the_place_of_slots_and_memory_of_the_machine(tmp_path: Path) -> None:
    async with house(tmp_path, executor__nodes__listen="127.0.0.1:0") as place, api_client(place) as client:
        queue = place.engine.scheduler.statistics()
        page = await client.get(f"{HOME}projects/{PROJECT}/queues")
        options = _nodes_options(place.engine.settings, 4321)

    assert (queue.slots, queue.memory_limit) == (1000, sys.maxsize)
    assert ("Slots in use" in page.text, "Memory in use" in page.text) == (True, False)
    assert (options.listen, options.folder) == ("127.0.0.1:0", tmp_path / "nodes")
    assert (options.api, options.api_ports) == (4321, (4321, 8080))


@pytest.mark.parametrize(("local", "here"), [("never", "auto"), ("fallback", "bubblewrap")])
def test_functions_beside_ray_need_a_sandbox(local: str, here: str) -> None:
    nodes = {"LISTEN": "127.0.0.1:1", "RAY": "127.0.0.1:2", "LOCAL": local}
    settings = load_settings(environ={f"FUNCTIOND_EXECUTOR__NODES__{name}": value for name, value in nodes.items()})
    options = _pool_options(settings, "m", "host", 0, None)  # type: ignore[arg-type]

    assert options.sandbox.isolation == here
    assert options.nodes is not None
    assert options.nodes.sandbox == {"isolation": "bubblewrap"}


async def test_the_command_prints_nodes_and_what_waits(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await functiond(client) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert await functiond(client, "--json") == 0
    listed = json.loads(capsys.readouterr().out)

    assert lines[0] == "NODE STATE BUSY CPU MEMORY NETWORK ISOLATION HEARD LABELS"
    seen = "big ready 2/3 1.5/8 1536/16384 MB project bubblewrap, cgroup v2, seccomp 0.4 s ago gpu, eu"
    assert lines[1] == seen
    assert "old is refused: its clock is 45 s behind" in lines
    assert "big lacks node: no node program is installed" in lines
    waiting = "4 starts of 32768 MB, 1 CPU, labels gpu (python) wait, the first for 12 s: shop/train"
    assert f"{waiting}; no node that has joined could hold one" in lines
    assert lines[5] == "ray-3f9c21aa0b4d idle 0/0 0/8 0/4096 MB, 0/2 GPU zone=b"
    assert "nothing is placed on nodes: Ray's head has not answered for 3 s" in lines
    assert [node["name"] for node in listed["nodes"]] == ["big", "small", "old", "away", "ray-3f9c21aa0b4d"]


async def test_the_command_drains_a_node_that_is_named(
    place: House, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = place.engine.pool.nodes
    assert isinstance(nodes, FixedNodes)
    codes = [await functiond(client, *given) for given in (("drain", "big"), ("drain",), ("drain", "away"))]
    printed = capsys.readouterr()

    assert (codes, nodes.drained) == ([0, 2, 1], ["big"])
    assert printed.out == "draining node big\n"
    assert "name one node to drain: functiond nodes drain NODE" in printed.err
    assert "the node away cannot be drained: it is absent" in printed.err


async def test_the_page_shows_nodes_and_drains_one(place: House, client: httpx.AsyncClient) -> None:
    start, page = await client.get(HOME), await client.get(PAGE)
    fields = {"form_token": await form_token(client, PAGE)}
    drained = await client.post(f"{PAGE}/big/drain", data=fields)
    refused = await client.post(f"{PAGE}/small/drain", data=fields)

    assert f'<a href="{PAGE}">Nodes</a>' in start.text
    for text in (
        "its clock is 45 s behind",
        "network project, users one for each project",
        "shop/train",
        "10.0.0.2:",
        "all processes end with the agent",
    ):
        assert text in page.text
    assert page.text.count(">Drain</button>") == 1
    assert (drained.status_code, drained.headers["location"]) == (303, PAGE)
    assert (refused.status_code, "cannot be drained: it is lost" in refused.text) == (409, True)


async def test_metrics_and_readiness_tell_of_nodes(client: httpx.AsyncClient) -> None:
    metrics, ready = await client.get("/metrics"), await client.get("/readyz")

    lines = set(metrics.text.splitlines())
    assert {
        'functiond_nodes{state="ready"} 1.0',
        'functiond_node_capacity{node="big",resource="cpus"} 8.0',
        'functiond_node_used{node="big",resource="memory"} 1610612736.0',
        'functiond_node_instances{node="big"} 3.0',
        'functiond_node_capacity{node="ray-3f9c21aa0b4d",resource="gpus"} 2.0',
        "functiond_placement_up 0.0",
        "functiond_grants_pending 4.0",
        'functiond_node_losses_total{reason="silent"} 1.0',
        "functiond_node_package_bytes_total 4096.0",
        "functiond_fence_seconds_count 0",
    } <= lines
    fits = "no node could hold an instance of 32768 MB, 1 CPU, labels gpu (python)"
    told = f"1 ready, 1 lost, 1 refused, 1 absent, 1 idle; nothing is placed on nodes: {PROBLEM}; {fits}"
    assert (ready.status_code, ready.json()["nodes"]) == (200, told)


def test_the_doctor_tells_of_nodes_unless_all_are_ready() -> None:
    states = ("3 ready", "2 ready, 1 lost")
    found = [list(doctor._health({"status": "ok"}, {"status": "ready", "nodes": told})) for told in states]

    assert [[(finding.where, finding.advice) for finding in each] for each in found] == [
        [],
        [("nodes", "run: functiond nodes")],
    ]
