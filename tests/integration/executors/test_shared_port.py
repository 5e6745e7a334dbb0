"""HTTP functions in a pool: concurrent instances with a network each, or one at a time on one port."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.executors.local.spawners import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool
from engine.functions.function_rules import request_limit
from engine.model import Code
from tests.contracts.dialect import Dialect
from tests.contracts.dialect_bootstrap import CUSTOM, HTTP
from tests.support.bridging import enter_network, needs_mapping, needs_network
from tests.support.executing import pool
from tests.support.programs import needs

ROOT = Path(__file__).parents[3]
OWN = IsolationOptions(isolation="process", fork_server="off", http_network="own")
FORKED = IsolationOptions(isolation="process", http_network="own")
SANDBOXED = IsolationOptions(isolation="bubblewrap")
OWN_SANDBOXED = IsolationOptions(isolation="bubblewrap", http_network="own")


@pytest.fixture(
    params=[
        pytest.param(OWN, marks=needs_network, id="own"),
        pytest.param(FORKED, marks=needs_network, id="own and forked"),
        pytest.param(OWN_SANDBOXED, marks=(needs_network, needs("bwrap")), id="own in a sandbox"),
        pytest.param(NO_ISOLATION, marks=needs_mapping, id="mapped"),
        pytest.param(SANDBOXED, marks=(needs_mapping, needs("bwrap")), id="mapped in a sandbox"),
    ]
)
async def apart(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, "", sandbox=request.param) as opened:
        assert opened.http_network == ("own" if request.param.http_network == "own" else "mapped")
        HTTP.write(tmp_path / "code")
        yield opened


async def test_instances_run_side_by_side_on_networks_or_ports_of_their_own(apart: Pool) -> None:
    hanging = asyncio.ensure_future(apart.execute(HTTP.function(), wish := HTTP.wish("hang")))
    other = await apart.execute(HTTP.function(), HTTP.wish("text"))

    assert HTTP.given(other) == "straße ✓"
    assert apart.statistics().started == 2
    assert apart.cancel(wish.key)
    assert (await hanging).code == Code.CANCELLED


#: Script that needs port 8000 for itself.
ON_ONE_PORT = """
import asyncio, json, sys
from pathlib import Path
from engine.executors.local import launcher
from tests.contracts.dialect_bootstrap import HTTP
from tests.support.executing import pool


async def main(folder):
    launcher.can_map_ports = lambda: False
    async with pool(folder, "") as opened:
        HTTP.write(folder / "code")

        def run(version, do):
            return opened.execute(HTTP.function(version=version), HTTP.wish(do))

        texts = [HTTP.given(await run(version, "text")) for version in ("1", "2", "1")]
        alive = opened.statistics().alive
        hanging = asyncio.ensure_future(run("1", "hang"))
        await asyncio.sleep(0)
        refused = await run("2", "text")
        hanging.cancel()
        print(json.dumps([texts, alive, refused.code, refused.message]))


asyncio.run(main(Path(sys.argv[1])))
"""


@needs_network
def test_on_one_port_an_idle_instance_makes_room_and_a_busy_one_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_ONE_PORT, str(tmp_path)]

    ran = subprocess.run(command, cwd=ROOT, preexec_fn=enter_network, stdout=subprocess.PIPE, check=True)

    texts, alive, code, message = json.loads(ran.stdout.splitlines()[-1])  # log lines precede the result
    assert (texts, alive, code) == (["straße ✓"] * 3, 1, Code.OVERLOAD)
    assert "the port of HTTP functions is in use, since there is one for all" in message


@pytest.mark.parametrize(
    ("asked", "fields", "shared_port", "limit"),
    [
        (HTTP, {}, False, 800),
        (HTTP, {}, True, 2),
        (HTTP, {"max_instances": 0}, True, 0),
        (CUSTOM, {}, True, 800),
        (CUSTOM, {"max_instances": 0}, True, 0),
        (CUSTOM, {"max_instances": -1}, True, -1),
    ],
)
def test_an_enabled_function_whose_servers_share_a_port_has_one_instance(
    asked: Dialect, fields: dict[str, int], shared_port: bool, limit: int
) -> None:
    assert request_limit(asked.function(concurrent_num=2, **fields), shared_port=shared_port) == limit
