"""Functions with a ``bootstrap`` in a pool: start, failed start, end, and the ports of their servers."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import InvalidField
from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool
from engine.functions.function_rules import FunctionRules, check_function
from engine.model import Code, Outcome
from tests.contracts.dialect import Dialect
from tests.contracts.dialect_bootstrap import CUSTOM, HTTP
from tests.support.bridging import needs_mapping
from tests.support.executing import exit_of, function, invocation, pool
from tests.support.programs import needs, needs_networks


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, "") as opened:
        yield opened


async def run(opened: Pool, folder: Path, bootstrap: str, **fields: object) -> Outcome:
    file = folder / "code" / "bootstrap"
    file.write_text(bootstrap)
    file.chmod(0o755)
    return await opened.execute(function("any", runtime="Custom", **fields), invocation())


async def test_a_bootstrap_that_exits_is_told_with_its_status_and_its_words(opened: Pool, tmp_path: Path) -> None:
    outcome = await run(opened, tmp_path, "#!/bin/sh\necho no database >&2\nexit 3\n")

    assert (outcome.code, outcome.message) == (
        Code.INIT_FAILED,
        "function initialization exception, error: the process exited with status 3 before it answered; see the log",
    )
    assert b"no database" in outcome.log


async def test_a_bootstrap_that_names_a_missing_file_of_its_own_lacks_no_interpreter(
    opened: Pool, tmp_path: Path
) -> None:
    outcome = await run(opened, tmp_path, "#!/bin/sh\n[ -e /opt/function/code/cache ] || exit 3\n")

    assert "status 3" in outcome.message
    assert "interpreter is installed" not in outcome.message


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_bridge_holds_no_descriptor_of_the_hosts_folders(opened: Pool, tmp_path: Path) -> None:
    outcome = await run(opened, tmp_path, "#!/bin/sh\nreadlink /proc/$PPID/fd/* >&2\nexit 3\n")

    assert b"socket:" in outcome.log
    assert b"/opt" not in outcome.log.split()


async def test_a_bootstrap_that_never_asks_is_given_up(opened: Pool, tmp_path: Path) -> None:
    asked = {"initializer_handler": "any", "initializer_timeout": 1}

    outcome = await run(opened, tmp_path, "#!/bin/sh\nexec sleep 1000\n", **asked)

    assert outcome.code == Code.INIT_TIMEOUT
    outcome = await run(opened, tmp_path, "exec sleep 1000\n", timeout=1)
    assert "no event; a server on port 8000 needs the runtime http" in outcome.message


@pytest.mark.parametrize(("code", "where"), [("", "has no server"), ("8001", "listens on 127.0.0.1 port 8001")])
async def test_a_server_that_listens_elsewhere_is_told_of_port_8000(
    opened: Pool, tmp_path: Path, code: str, where: str
) -> None:
    serve = f"-m http.server --bind 127.0.0.1 {code}" if code else "-c 'import time; time.sleep(1000)'"
    (tmp_path / "code" / "bootstrap").write_text(f"exec python3 {serve}\n")

    outcome = await opened.execute(function("any", runtime="http", timeout=1), invocation())

    expected = "Invoke function timeout: loading the code took longer than 1 s: the server must listen on port 8000 of"
    assert (outcome.code, outcome.message.startswith(expected)) == (Code.TIMEOUT, True)
    assert where in outcome.message


async def test_a_pre_stop_handler_is_a_sigterm(opened: Pool, tmp_path: Path) -> None:
    os.mkfifo(told := tmp_path / "told")
    CUSTOM.write(tmp_path / "code")
    deeds = tmp_path / "code" / "deeds.py"
    stop = f"def stop(*_):\n    open({str(told)!r}, 'w').write('stopping')\n    os._exit(0)\n"
    deeds.write_text(f"{deeds.read_text()}\n{stop}\nsignal.signal(signal.SIGTERM, stop)\n")
    asked = CUSTOM.function(pre_stop_handler="any")
    await opened.execute(asked, CUSTOM.wish("text"))

    retiring = asyncio.ensure_future(opened.retire(asked.function_id))

    assert await asyncio.to_thread(told.read_text) == "stopping"
    await retiring


@pytest.mark.parametrize("asked", [CUSTOM, HTTP], ids=["Custom", "http"])
async def test_a_retired_instance_leaves_no_process(opened: Pool, tmp_path: Path, asked: Dialect) -> None:
    asked.write(tmp_path / "code")
    pid = int(asked.given(await opened.execute(asked.function(), asked.wish("pid"))).split()[0])

    await opened.retire(asked.function().function_id)

    await exit_of(pid)  # no timeout of its own: bounded by the test's


def test_a_lambda_runtime_takes_one_request_at_a_time() -> None:
    asked = function("any", runtime="Lambda", concurrent_num=2)

    with pytest.raises(InvalidField, match="the runtimes of Lambda take one request at a time"):
        check_function(asked, asked.urn("local-1"), FunctionRules())


# --- ports and networks of HTTP functions ---

ROOT = Path(__file__).parents[3]
SANDBOXED = IsolationOptions(isolation="bubblewrap")
CUT_OFF = IsolationOptions(isolation="bubblewrap", network="none")
IN_PROJECT = IsolationOptions(isolation="bubblewrap", network="project")


@pytest.fixture(
    params=[
        pytest.param(CUT_OFF, marks=needs("bwrap"), id="a network for each instance"),
        pytest.param(IN_PROJECT, marks=(needs_mapping, needs_networks), id="mapped in the network of the project"),
        pytest.param(NO_ISOLATION, marks=needs_mapping, id="mapped"),
        pytest.param(SANDBOXED, marks=(needs_mapping, needs("bwrap")), id="mapped in a sandbox"),
    ]
)
async def apart(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, "", sandbox=request.param) as opened:
        assert opened.walls["http_network"] == ("own" if request.param is CUT_OFF else "mapped")
        HTTP.write(tmp_path / "code")
        yield opened


async def test_instances_run_side_by_side_on_networks_or_ports_of_their_own(apart: Pool) -> None:
    hanging = asyncio.ensure_future(apart.execute(HTTP.function(), wish := HTTP.wish("hang")))
    other = await apart.execute(HTTP.function(), HTTP.wish("text"))

    assert HTTP.given(other) == "straße ✓"
    assert apart.statistics().started == 2
    assert apart.cancel(wish.key)
    assert (await hanging).code == Code.CANCELLED


#: Bootstraps as public functions have them. They lack the x bit, as in many packages.
_PUBLIC = {
    "Node.js": "/opt/function/runtime/nodejs12.13/rtsp/nodejs/bin/node $RUNTIME_CODE_ROOT/index.js",
    "Python": "export PYTHONPATH=${PYTHONPATH}:${RUNTIME_CODE_ROOT}/dependencies\n"
    "/opt/function/runtime/python3.10/rtsp/python/bin/python3 -u $RUNTIME_CODE_ROOT/src/app.py",
    "a program": "/opt/function/code/go-http-demo",
    "Python by its first line": "#!/opt/function/runtime/python2.7/rtsp/python/bin/python -u\nimport src.app",
}
_SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen = repr([sys.version_info[0], sorted(os.listdir("/opt"))])
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + seen.encode())

http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
_NODE = """
require('http').createServer((_, response) => response.end(
  `[3, ["${require('fs').readdirSync('/opt').sort().join('", "')}"]]`)).listen(8000, '127.0.0.1');
"""


@pytest.mark.parametrize(
    "bootstrap",
    [pytest.param(text, marks=needs("node") if "/nodejs/" in text else (), id=name) for name, text in _PUBLIC.items()],
)
@pytest.mark.parametrize(
    "sandbox",
    [
        pytest.param(NO_ISOLATION, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), id="as root"),
        pytest.param(SANDBOXED, marks=needs("bwrap"), id="in a sandbox"),
    ],
)
@needs_mapping
async def test_bootstraps_find_interpreters_and_code_where_the_platform_has_them(
    tmp_path: Path, sandbox: IsolationOptions, bootstrap: str
) -> None:
    before, code = sorted(os.listdir("/opt")), tmp_path / "code"
    async with pool(tmp_path, "", sandbox=sandbox) as opened:
        (code / "src").mkdir()
        (code / "src" / "app.py").write_text(_SERVER)
        (code / "index.js").write_text(_NODE)
        (code / "go-http-demo").write_text("#!/bin/sh\nexec python3 src/app.py\n")
        (code / "go-http-demo").chmod(0o755)
        (code / "bootstrap").write_text(bootstrap)
        event = json.dumps({"httpMethod": "GET", "path": "/", "headers": {}})
        outcome = await opened.execute(function("any", runtime="http"), invocation(event))

    assert outcome.code == Code.OK, outcome.message
    seen = ast.literal_eval(base64.b64decode(json.loads(outcome.result)["body"]).decode())
    assert seen == [3, sorted({"function", *(before if sandbox is NO_ISOLATION else ())})]
    assert sorted(os.listdir("/opt")) == before  # of the host


async def test_http_functions_are_refused_where_ports_cannot_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.local.launcher.can_map_ports", lambda: False)
    async with pool(tmp_path, "") as opened:
        HTTP.write(tmp_path / "code")

        assert opened.walls["http_network"] == "unavailable"
        await opened.check_runtime(CUSTOM.runtime)
        with pytest.raises(InvalidField, match="HTTP functions need Linux"):
            await opened.check_runtime(HTTP.runtime)
        created_elsewhere = await opened.execute(HTTP.function(), HTTP.wish("text"))
        assert "HTTP functions need Linux 5.5" in created_elsewhere.message
