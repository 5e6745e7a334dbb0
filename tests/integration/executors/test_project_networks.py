"""Projects on one machine: the network and the user of each, as their functions see them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from msgspec.structs import replace

from engine.errors import SettingsError
from engine.executors.local import choice
from engine.executors.local.choice import IsolationOptions, ports_of
from engine.executors.local.spawners import SandboxSpawner
from engine.executors.pool import Pool
from engine.isolation import network
from engine.isolation.bubblewrap import Bubblewrap
from engine.model import Code
from engine.runtimes.interpreters import WORKERS
from tests.support.executing import function, invocation, is_alive, local_spawner, pool
from tests.support.instances import result
from tests.support.programs import needs_networks, program

SOURCE = """
import os, pwd, socket, time


def connect(event, context):
    try:
        with socket.create_connection((event["host"], event["port"]), timeout=3) as connected:
            return connected.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def connect_by_device(event, context):
    family = socket.AF_INET6 if ":" in event["host"] else socket.AF_INET
    with socket.socket(family) as connected:
        connected.settimeout(3)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, event["device"].encode())
        try:
            connected.connect((event["host"], event["port"]))
        except OSError as error:
            return type(error).__name__


def devices(event, context):
    return [name for _, name in socket.if_nameindex()]


def listen(event, context):
    global server
    server = socket.create_server(("127.0.0.1", 9000))
    return "listening"


def look(event, context):
    return [os.getuid(), pwd.getpwuid(os.getuid()).pw_name, os.readlink("/proc/self/ns/net")]
"""
USERS = (1_900_000_000, 100)
SEPARATE = IsolationOptions(isolation="bubblewrap", network="project", user_ids=USERS)

pytestmark = needs_networks


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, SOURCE, sandbox=SEPARATE) as opened:
        yield opened


@pytest.fixture
def host_port() -> Iterator[int]:
    """Yield a port of the host's loopback on which a server says ``host``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=_answer, args=(server,))
        answering.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        answering.join()


def _answer(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"host")


async def in_project(opened: Pool, project: str, handler: str, event: dict[str, Any] | None = None) -> Any:
    number = sum(map(ord, project))  # each project has a function of its own
    return await result(opened, handler, event or {}, project=project, function_id=number)


async def test_the_loopback_of_the_host_is_out_of_reach(opened: Pool, host_port: int) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "169.254.1.1"):
        assert await in_project(opened, "a", "connect", {"host": host, "port": host_port}) != "host"


async def test_a_port_of_the_host_is_opened_to_a_project(tmp_path: Path, host_port: int) -> None:
    sandbox = IsolationOptions(isolation="bubblewrap", network="project", host_ports={"a": (host_port,)})
    async with pool(tmp_path, SOURCE, sandbox=sandbox) as opened:
        event = {"host": "127.0.0.1", "port": host_port}
        assert await in_project(opened, "a", "connect", event) == "host"
        assert await in_project(opened, "b", "connect", event) == "ConnectionRefusedError"


def test_the_port_of_the_api_leads_to_that_for_functions_also_if_it_is_listed() -> None:
    sandbox = IsolationOptions(host_ports=(5432, 8080), api_ports={8080: 40_000, 40_000: 40_000})

    assert ports_of(sandbox, "any") == ["5432:5432", "8080:40000", "40000:40000"]
    assert ports_of(replace(sandbox, api_ports={8080: 0, 0: 0}), "any") == ["5432:5432"]


async def test_projects_hear_nothing_of_each_other(opened: Pool) -> None:
    assert await in_project(opened, "a", "listen") == "listening"
    assert await in_project(opened, "b", "connect", {"host": "127.0.0.1", "port": 9000}) == "ConnectionRefusedError"
    assert await in_project(opened, "b", "listen") == "listening"
    assert (await in_project(opened, "a", "look"))[2] != (await in_project(opened, "b", "look"))[2]


async def test_addresses_with_credentials_of_a_cloud_are_not_forwarded(opened: Pool) -> None:
    for host in ("169.254.169.254", "fd00:ec2::254"):
        assert await in_project(opened, "a", "connect", {"host": host, "port": 80}) == "PermissionError"
        for device in await in_project(opened, "a", "devices"):
            if device != "lo":
                event = {"host": host, "port": 80, "device": device}
                assert await in_project(opened, "a", "connect_by_device", event) == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users for projects")
async def test_functions_of_a_project_have_a_user_of_their_own(opened: Pool) -> None:
    seen = [await in_project(opened, project, "look") for project in ("a", "b", "a")]

    first, second, again = (user - USERS[0] for user, _, _ in seen)
    assert {name for _, name, _ in seen} == {"snuser"}
    assert (first, second, again) == (expected := 1 + crc32(b"a") % 99, 1 + crc32(b"b") % 99, expected)


async def test_a_network_that_ends_takes_its_instances_along_and_a_new_network_comes(opened: Pool) -> None:
    await in_project(opened, "a", "look")
    (instance,) = opened.allocator.alive
    (pasta,) = tenants_of(opened)._networks
    os.kill(pasta.pid, signal.SIGKILL)
    await instance.closed.wait()
    await in_project(opened, "a", "look")

    (new,) = tenants_of(opened)._networks
    assert new is not pasta


async def test_an_idle_network_ends(opened: Pool) -> None:
    tenants = tenants_of(opened)
    await in_project(opened, "a", "look")
    tenants.linger = 0.0
    local_spawner(opened).linger = 0.0  # type: ignore[attr-defined]
    ((pasta, ended),) = tenants._networks.items()
    pid = pasta.pid
    await opened.retire(sum(map(ord, "a")))
    await ended.wait()

    assert not is_alive(pid)


async def test_when_user_ids_run_out_the_error_names_the_setting(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has users for projects")
    sandbox = IsolationOptions(isolation="bubblewrap", network="host", user_ids=(USERS[0], 2))
    async with pool(tmp_path, SOURCE, sandbox=sandbox) as opened:
        await in_project(opened, "a", "look")
        outcome = await opened.execute(function("look", project="b", function_id=2), invocation())

    assert (outcome.code, "executor.user_ids" in outcome.message) == (Code.OVERLOAD, True)


async def test_where_no_network_can_be_made_the_reason_is_told_or_the_start_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "PATH", str(tmp_path))
    (tmp_path / "other").mkdir()
    async with pool(tmp_path, SOURCE, sandbox=IsolationOptions(isolation="bubblewrap", network="auto")) as opened:
        assert opened.walls["network"] == "host: pasta is not installed (package passt)"

    with pytest.raises(SettingsError, match=r'executor\.network is "project", but pasta is not installed'):
        async with pool(tmp_path / "other", SOURCE, sandbox=SEPARATE):
            pass


#: Opens a network without rights, and runs a command in it.
IN_A_NETWORK = """
import subprocess, sys
import network
opened = network.open_network((), None, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
status = subprocess.run([*opened.enter, *sys.argv[1:]]).returncode
opened.close()
sys.exit(status or opened.process.wait())
"""
#: Lets any user open /dev/net/tun, in a mount namespace of its own, and then becomes an ordinary user.
AS_ORDINARY = """
mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
exec setpriv --reuid 4242 --regid 4242 --clear-groups "$@"
"""
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_an_engine_that_is_not_root_s_needs_no_right_for_networks(host_port: int) -> None:
    python, become = "/usr/bin/python3", ["unshare", "--mount", "--propagation", "private", "sh", "-c", AS_ORDINARY]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(WORKERS, folder / "workers")
        shutil.copy(network.__file__, folder)
        folder.chmod(0o755)
        bubblewrap = Bubblewrap(program=program("bwrap"), folder=folder, users=None)
        bubblewrap.name()
        command = bubblewrap.command(python, folder / "workers", (), own_network=True)
        command = [str(folder / "workers") if part == str(WORKERS) else part for part in command]
        probe = [*command, "--probe", json.dumps({"tmp": 16, "network": False, "user": None})]

        def run(*command: str) -> subprocess.CompletedProcess[bytes]:
            inside = [python, "-c", IN_A_NETWORK, *command]
            return subprocess.run([*become, "sh", *inside], cwd=folder, capture_output=True, check=False)

        probed, connected = run(*probe), run(python, "-c", CONNECT, str(host_port))

    assert (probed.returncode, probed.stderr) == (0, b"")
    assert connected.stderr.endswith(b"ConnectionRefusedError: [Errno 111] Connection refused\n")


def tenants_of(opened: Pool) -> Any:
    spawner = local_spawner(opened)
    assert isinstance(spawner, SandboxSpawner)
    return spawner._tenants
