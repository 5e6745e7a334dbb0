"""Functions in a bubblewrap sandbox: their view of the host, their limits, and cleanup."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.errors import SettingsError
from engine.executors.local.channel import LocalChannel
from engine.executors.local.choice import IsolationOptions
from engine.executors.local.spawners import SandboxSpawner
from engine.executors.local.template import ForkedChild
from engine.executors.pool import Pool
from engine.isolation.bubblewrap import Bubblewrap
from engine.isolation.orphans import kill_orphans
from engine.isolation.processes import carries, marked
from engine.model import Code, CodePackage, Dependency
from engine.runtimes.interpreters import WORKERS, Interpreters, own_interpreter
from tests.integration.executors.test_isolation import SOURCE as BASIC
from tests.integration.executors.test_isolation import engine_process, groups, instances_of, need_cgroup
from tests.support.executing import (
    exit_of,
    function,
    invocation,
    is_alive,
    launched,
    local_spawner,
    marker,
    pid_of,
    pool,
    stop,
)
from tests.support.instances import result
from tests.support.programs import needs, program
from tests.support.triggering import until

JAVA = list(Path("/etc").glob("java-*/security/java.security"))
SOURCE = (
    BASIC
    + '''
import json, signal, socket


def look(event, context):
    return {
        "user": [os.getuid(), os.getgid(), os.getgroups()],
        "folder": os.getcwd(), "tmp": os.listdir("/tmp"), "shm": os.listdir("/dev/shm"),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "files": descriptors(event, context),
        "rights": [line.split()[1] for line in open("/proc/self/status") if line[:6] in ("CapPrm", "CapEff", "CapInh")],
        "no_new_rights": "NoNewPrivs:\\t1" in open("/proc/self/status").read(),
        "size": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize >> 20,
        "runtime": os.listdir(os.environ["RUNTIME_ROOT"]), "code": os.environ["RUNTIME_CODE_ROOT"],
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def read(event, context):
    try:
        return open(event["path"]).read()
    except OSError as error:
        return type(error).__name__


def write(event, context):
    try:
        with open(event["path"], "w") as file:
            file.write("x")
        return "written"
    except OSError as error:
        return type(error).__name__


def fill(event, context):
    with open("/tmp/large", "wb") as file:
        while True:
            file.write(bytes(1 << 20))


def hold(event, context):
    kept = bytearray(200 << 20)
    kept[::4096] = bytes(b"x") * len(kept[::4096])
    time.sleep(60)


def exhaust(event, context):
    children, files = 0, []
    try:
        while os.fork():
            children += 1
        time.sleep(60)
    except OSError:
        pass
    try:
        while True:
            files.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return [children, len(files)]


def search(event, context):
    """Whatever of this process's surroundings holds the word."""
    found = []
    for path in ("environ", "cmdline", "mountinfo", "maps", "cgroup", "status"):
        for process in [name for name in os.listdir("/proc") if name.isdigit()]:
            try:
                if event["word"] in open("/proc/%s/%s" % (process, path), errors="replace").read():
                    found.append([process, path])
            except OSError:
                pass
    return found


def orphan(event, context):
    """A process whose parent has gone ends: who reaps it?"""
    reading, writing = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(writing, b"%d" % os.getpid())
            os._exit(0)
        os._exit(0)
    os.wait()
    orphan = int(os.read(reading, 20))
    while os.path.exists("/proc/%d" % orphan):
        time.sleep(0.001)
    return "reaped"


def signalled(event, context):
    os.kill(os.getpid(), getattr(signal, event["signal"]))
    time.sleep(30)


def listen(event, context):
    server = socket.create_server(("127.0.0.1", 8000))
    with socket.create_connection(("127.0.0.1", 8000), timeout=10):
        return "connected"
'''
)
LAYER: dict[str, Any] = {"id": "1", "dep_id": "1", "project": "p", "name": "l", "version": 1, "runtime": "Python3.10"}
LAYER |= {"etag": "", "code": CodePackage(sha256="1", digest="", size=1)}
SANDBOX = IsolationOptions(isolation="bubblewrap", tmp_size=16)
POOL = {"sandbox": SANDBOX}


pytestmark = needs("bwrap")


# --- view of the host ---


async def test_a_function_sees_its_own_things_only(opened: Pool) -> None:
    seen = await result(opened, "look")

    assert seen["user"] == [1003, 1003, [] if os.geteuid() == 0 else seen["user"][2]]
    assert (seen["folder"], seen["code"]) == ("/opt/function/code", "/opt/function/code")
    assert (seen["tmp"], seen["shm"], seen["processes"]) == ([], [], [1, 2])
    assert seen["files"] == ["/dev/null", "pipe", "pipe", "socket"]
    assert (set(seen["rights"]), seen["no_new_rights"]) == ({"0" * 16}, True)
    assert "python_worker.py" in seen["runtime"]
    assert seen["size"] == 16


async def test_the_data_of_the_engine_is_out_of_sight(opened: Pool, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("secret")

    assert await result(opened, "read", {"path": str(secret)}) == "FileNotFoundError"
    assert await result(opened, "read", {"path": "/etc/shadow"}) == "FileNotFoundError"
    assert await result(opened, "read", {"path": "/proc/1/environ"}) == "PermissionError"


@pytest.mark.skipif(not JAVA, reason="needs a Java of Debian")
async def test_java_finds_its_security_settings(opened: Pool) -> None:
    assert "security.provider.1=" in await result(opened, "read", {"path": str(JAVA[0])})


async def test_data_below_a_folder_that_is_shown_is_covered() -> None:
    data = Path(tempfile.mkdtemp(dir="/usr/local"))
    try:
        (data / "secret").write_text("secret")
        async with pool(data, SOURCE, sandbox=SANDBOX) as opened:
            text = await result(opened, "read", {"path": str(data / "secret")})
    finally:
        shutil.rmtree(data)

    assert text == "FileNotFoundError"


async def test_a_function_sees_nothing_else_of_the_home_that_its_interpreter_lies_in(tmp_path: Path) -> None:
    program, secret = tmp_path / "home" / "bin" / "python3", tmp_path / "home" / "secret"
    program.parent.mkdir(parents=True)
    program.symlink_to(own_interpreter().path)
    secret.write_text("secret")

    async with pool(tmp_path, SOURCE, sandbox=SANDBOX, interpreters=Interpreters(python=str(program))) as opened:
        assert await result(opened, "read", {"path": str(secret)}) == "FileNotFoundError"


async def test_no_variable_or_argument_of_the_engine_reaches_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_SECRET", "word-of-the-engine")
    async with pool(tmp_path, SOURCE, sandbox=SANDBOX) as opened:
        assert await result(opened, "search", {"word": "word-of-the-engine"}) == []
        assert await result(opened, "search", {"word": "RUNTIME_CODE_ROOT"}) == []  # the search itself works
        assert ["2", "environ"] in await result(opened, "search", {"word": "FUNCTIOND_INSTANCE"})


@pytest.mark.parametrize(
    "path", ["/opt/function/code/new", "/new", "/etc/passwd", "/usr/new", "/home/snuser/runtime/new"]
)
async def test_nothing_but_the_temporary_folder_can_be_written(opened: Pool, path: str) -> None:
    assert await result(opened, "write", {"path": path}) in ("OSError", "PermissionError")
    assert await result(opened, "write", {"path": "/tmp/new"}) == "written"


async def test_instances_share_no_temporary_folder(opened: Pool) -> None:
    await result(opened, "write", {"path": "/tmp/mine"})
    await result(opened, "write", {"path": "/dev/shm/mine"})
    other = await result(opened, "look")

    assert opened.statistics().started > 1
    assert (other["tmp"], other["shm"]) == ([], [])


async def test_layers_are_there_read_only(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, sandbox=SANDBOX) as opened:
        (tmp_path / "code" / "layered.py").write_text("")
        layer = Dependency(**LAYER)
        file = "/opt/function/layers/0/layered.py"
        text = await result(opened, "read", {"path": file}, dependencies=(layer,))

    assert text == ""


# --- limits ---


@pytest.mark.parametrize(
    ("handler", "tmp_size", "code", "words"),
    [
        ("fill", 200, Code.DISK_FULL, "No space left"),
        ("hoard", 200, Code.OUT_OF_MEMORY, ""),
        ("hold", 4096, Code.OUT_OF_MEMORY, ""),
    ],
)
async def test_files_of_the_temporary_folder_are_no_memory_and_leave_none_to_the_function(
    tmp_path: Path, handler: str, tmp_size: int, code: Code, words: str
) -> None:
    options = IsolationOptions(isolation="bubblewrap", tmp_size=tmp_size)
    async with pool(tmp_path, SOURCE, sandbox=options) as opened:
        outcome = await opened.execute(function(handler, memory_size=64), invocation())

    assert (outcome.code, words in outcome.message) == (code, True)


async def test_processes_and_descriptors_are_limited(tmp_path: Path) -> None:
    need_cgroup(tmp_path)
    async with pool(tmp_path, SOURCE, sandbox=SANDBOX, processes=50) as opened:
        processes, descriptors = await result(opened, "exhaust")

    assert (40 < processes < 50, 2000 < descriptors < 2048) == (True, True)


async def test_without_network_there_is_loopback_only(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, sandbox=IsolationOptions(isolation="bubblewrap", network="none")) as opened:
        assert (await result(opened, "look"))["interfaces"] == ["lo"]
        assert await result(opened, "listen") == "connected"


# --- endings ---


async def test_orphans_are_reaped(opened: Pool) -> None:
    assert await result(opened, "orphan") == "reaped"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV"])
async def test_the_signal_that_ended_an_instance_is_told(opened: Pool, name: str) -> None:
    outcome = await opened.execute(function("signalled"), invocation(json.dumps({"signal": name})))

    assert (outcome.code, name in outcome.message) == (Code.USER_EXCEPTION, True)


async def test_the_signal_that_ended_an_instance_is_told_although_its_report_comes_late(opened: Pool) -> None:
    asked = function("signalled", revision=1)
    await opened.warm(asked)
    (instance,) = opened.allocator.alive
    stop(instance.pid)  # the sandbox's init, which reports the signal
    asyncio.get_running_loop().call_later(0.5, os.kill, instance.pid, signal.SIGCONT)
    outcome = await opened.execute(asked, invocation('{"signal": "SIGTERM"}'))

    assert "SIGTERM" in outcome.message


async def test_the_init_of_a_sandbox_has_no_handler_by_which_a_function_could_end_it(opened: Pool) -> None:
    status = await result(opened, "read", {"path": "/proc/1/status"})

    assert "SigCgt:\t" + 16 * "0" in status


async def test_the_next_instance_is_forked_in_the_same_sandbox(opened: Pool) -> None:
    await pid_of(opened)
    (template,) = sandboxes(opened)
    await opened.retire(1)
    await pid_of(opened)

    assert sandboxes(opened) == [template]


async def test_a_sandbox_without_instances_is_closed(opened: Pool) -> None:
    spawner = spawner_of(opened)
    spawner.linger = 0
    await pid_of(opened)
    (template,) = spawner._templates.values()
    await opened.retire(1)

    await template.closed.wait()
    assert sandboxes(opened) == []


async def test_a_sandbox_that_is_closed_leaves_no_orphan(tmp_path: Path) -> None:
    become_subreaper(True)
    try:
        before = children()
        async with pool(tmp_path, SOURCE, sandbox=SANDBOX) as opened:
            await pid_of(opened)
        assert children() == before
    finally:
        become_subreaper(False)


async def test_a_sandbox_that_dies_takes_its_instances_along_and_a_new_one_comes(opened: Pool) -> None:
    await pid_of(opened)
    (template,) = spawner_of(opened)._templates.values()
    (instance,) = opened.allocator.alive
    os.kill(template.pid, signal.SIGKILL)

    await instance.closed.wait()
    assert await pid_of(opened) == 2


async def test_a_sandbox_that_is_stopped_is_left_to_its_instances_and_a_new_one_comes(
    opened: Pool, tmp_path: Path
) -> None:
    await pid_of(opened)
    ((home, stopped),) = spawner_of(opened)._templates.items()
    stopped._max_wait = 0.1
    for pid in functions(tmp_path):
        if carries(pid, "FUNCTIOND_INSTANCE", "0" * 32):
            os.kill(pid, signal.SIGSTOP)

    assert not await opened.warm(function("pid"))
    assert await pid_of(opened) == 2
    assert await opened.warm(function("pid"))
    assert spawner_of(opened)._templates[home] is not stopped
    await opened.retire(1)
    await stopped.closed.wait()


def remove_sandbox(opened: Pool) -> None:
    shutil.rmtree(spawner_of(opened)._bubblewrap.folder)


def remove_bubblewrap(opened: Pool) -> None:
    spawner = spawner_of(opened)
    spawner._bubblewrap = replace(spawner._bubblewrap, program="/nowhere/bwrap")


def spoil_fence(opened: Pool) -> None:
    spawner_of(opened)._fence["tmp"] = -1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove_sandbox, "passwd"),
        (remove_bubblewrap, "No such file or directory (/nowhere/bwrap); it ran before: install it again"),
        (spoil_fence, "mount: Invalid argument"),
    ],
)
async def test_a_sandbox_that_cannot_be_made_is_the_engine_s_fault_that_says_why(
    opened: Pool, spoil: Callable[[Pool], None], words: str
) -> None:
    await opened.warm(function("pid", revision=9))  # another sandbox of the same project
    spoil(opened)
    outcome = await opened.execute(function("pid"), invocation())

    assert (outcome.code, words in outcome.message) == (Code.ENGINE, True), outcome


async def test_a_failed_setup_is_the_engine_s_fault_although_the_socket_closes_first(
    opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner, loop = spawner_of(opened), asyncio.get_running_loop()
    spoil_fence(opened)
    spawned, send_descriptors = ForkedChild.spawned, LocalChannel.send_descriptors

    async def spawned_late(child: ForkedChild) -> None:
        channel = launched(opened).channel
        await spawned(child)
        (template,) = spawner._templates.values()
        loop.remove_reader(template._socket)
        await until(lambda: not channel.connected)

    def send_then_listen(channel: LocalChannel, cgroup_fds: Sequence[int]) -> bool:
        (template,) = spawner._templates.values()
        loop.add_reader(template._socket, template._read)
        return send_descriptors(channel, cgroup_fds)

    monkeypatch.setattr(ForkedChild, "spawned", spawned_late)
    monkeypatch.setattr(LocalChannel, "send_descriptors", send_then_listen)
    outcome = await opened.execute(function("pid"), invocation())

    assert outcome.code == Code.ENGINE
    assert "mount: Invalid argument" in outcome.message


async def test_after_kill_9_of_the_engine_nothing_of_it_runs(tmp_path: Path) -> None:
    with engine_process(tmp_path, "sandbox") as dead:
        await asyncio.to_thread(instances_of, dead)
        left = functions(tmp_path)
        dead.send_signal(signal.SIGKILL)

    assert len(left) > 5
    for pid in left:
        await exit_of(pid)
    assert not [pid for pid in left if is_alive(pid)]
    assert kill_orphans(marker(tmp_path)) == []
    assert groups(tmp_path) == []


# --- choice of the isolation ---


async def test_a_sandbox_that_is_asked_for_and_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SettingsError, match=r"bubblewrap is not installed"):
        async with pool(tmp_path, SOURCE, sandbox=SANDBOX):
            pass
    assert groups(tmp_path) == []


@pytest.mark.parametrize("linked", [False, True])
async def test_an_interpreter_that_sandboxes_hide_is_refused(tmp_path: Path, linked: bool) -> None:
    node = tmp_path / "node"
    shutil.copy(program("node"), node)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        (link := Path(folder) / "node").symlink_to(node)
        refused = Interpreters(node=str(link if linked else node))
        with pytest.raises(SettingsError, match=r"executor.node = .* is below .*: move it"):
            async with pool(tmp_path, SOURCE, sandbox=SANDBOX, interpreters=refused):
                pass
    assert groups(tmp_path) == []


async def test_where_there_is_none_processes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with pool(tmp_path, SOURCE, sandbox=IsolationOptions()) as opened:
        assert opened.walls["isolation"].startswith("process, ")


@pytest.mark.parametrize("python", ["/usr/bin/python3", "/bin/python3"])  # the second if PATH begins with /bin
def test_an_engine_that_is_not_root_s_needs_no_right(tmp_path: Path, python: str) -> None:
    """Start bubblewrap as an unprivileged user, with an interpreter that this user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(WORKERS, folder / "workers")
        folder.chmod(0o755)
        bubblewrap = Bubblewrap(program=program("bwrap"), folder=folder, users=None)
        bubblewrap.name()
        fence = json.dumps({"tmp": 16, "network": True, "user": None})
        command = [*bubblewrap.command(python, folder / "workers", ()), "--probe", fence]
        command = [str(folder / "workers") if part == str(WORKERS) else part for part in command]
        become = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups"] if os.geteuid() == 0 else []
        tried = subprocess.run([*become, *command], stderr=subprocess.PIPE, check=False)

    assert (tried.returncode, tried.stderr) == (0, b"")


# --- helpers ---


def spawner_of(opened: Pool) -> SandboxSpawner:
    spawner = local_spawner(opened)
    assert isinstance(spawner, SandboxSpawner)
    return spawner


def sandboxes(opened: Pool) -> list[int]:
    return [template.pid for template in spawner_of(opened)._templates.values()]


def become_subreaper(wanted: bool) -> None:
    """Let orphaned descendants become children of this process, or stop that (PR_SET_CHILD_SUBREAPER)."""
    assert ctypes.CDLL(None).prctl(36, int(wanted), 0, 0, 0) == 0


def children() -> str:
    return "".join(file.read_text() for file in Path("/proc/self/task").glob("*/children"))


def functions(folder: Path) -> list[int]:
    """Return all sandboxed processes of the engine on this folder, including bubblewrap itself."""
    return list(marked("FUNCTIOND_ENGINE", marker(folder)))
