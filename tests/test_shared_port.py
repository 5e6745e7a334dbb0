"""HTTP functions in a pool: as many instances as there are networks, or one after another on one port."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.executors.pool import Pool
from engine.executors.walls import Walls
from engine.function_rules import instance_limit
from engine.model import Code
from tests.bridging import enter_network, needs_network
from tests.contracts.dialect import Dialect
from tests.contracts.dialect_bootstrap import CUSTOM, HTTP
from tests.executing import pool

ROOT = Path(__file__).parents[1]
APART = Walls(isolation="process", fork_server="off")


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, "", walls=APART) as opened:
        if not opened.own_network:
            pytest.skip("this machine gives no network namespaces")
        HTTP.write(tmp_path / "code")
        yield opened


async def test_instances_with_networks_of_their_own_run_side_by_side(apart: Pool) -> None:
    hanging = asyncio.ensure_future(apart.execute(HTTP.function(), wish := HTTP.wish("hang")))
    other = await apart.execute(HTTP.function(), HTTP.wish("text"))

    assert HTTP.given(other) == "straße ✓"
    assert apart.statistics().started == 2
    assert apart.cancel(wish.key)
    assert (await hanging).code == Code.CANCELLED


#: Run where port 8000 is nobody else's.
ON_ONE_PORT = """
import asyncio, json, sys
from pathlib import Path
from tests.contracts.dialect_bootstrap import HTTP
from tests.executing import pool


async def main(folder):
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

    texts, alive, code, message = json.loads(ran.stdout)
    assert (texts, alive, code) == (["straße ✓"] * 3, 1, Code.OVERLOAD)
    assert "the port of HTTP functions is in use, since there is one for all" in message


async def test_http_functions_that_reach_the_hosts_network_share_its_port(tmp_path: Path) -> None:
    async with pool(tmp_path, "", walls=Walls(isolation="process", fork_server="off", http_network="host")) as opened:
        assert not opened.own_network


@pytest.mark.parametrize(
    ("asked", "own_network", "limit"),
    [(HTTP, True, 400), (HTTP, False, 1), (CUSTOM, False, 400)],
)
def test_a_function_whose_servers_share_a_port_has_one_instance(asked: Dialect, own_network: bool, limit: int) -> None:
    assert instance_limit(asked.function(), own_network=own_network) == limit


def test_a_disabled_function_stays_disabled() -> None:
    assert instance_limit(HTTP.function(max_instances=0), own_network=False) == 0
