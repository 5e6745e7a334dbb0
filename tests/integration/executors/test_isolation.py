"""Isolation of instances from the host, and cleanup after an instance or the engine has ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool
from engine.isolation import detect
from engine.isolation.cgroup import (
    PREFIX,
    V2,
    CgroupEnclosure,
    CgroupIsolation,
    Layout,
    group_locked,
    members,
    remove_stale_groups,
)
from engine.isolation.detect import cgroup_mounts, check_marker, detect_isolation
from engine.isolation.limits import Limits
from engine.isolation.orphans import kill_orphans
from engine.isolation.processes import carries, marked
from engine.isolation.rlimits import RlimitEnclosure, RlimitIsolation
from engine.model import Code
from tests.support.executing import dig, exit_of, function, invocation, is_alive, marker, pool
from tests.support.instances import result
from tests.support.programs import program
from tests.support.triggering import until

SOURCE = '''
import os, resource, subprocess, sys, time


def hoard(event, context):
    blocks = []
    while len(blocks) < 1024:
        blocks.append(bytearray(os.urandom(1)) * (8 << 20))
    return "had it all"


def spread(event, context):
    """Memory in children, each of them small."""
    for _ in range(8):
        if os.fork() == 0:
            block = b"x" * (40 << 20)
            time.sleep(60)
    hoard(event, context)


def crowd(event, context):
    """The same, and the first process needs no memory itself."""
    for _ in range(4):
        if os.fork() == 0:
            block = b"x" * (40 << 20)
            time.sleep(60)
    time.sleep(60)


def bomb(event, context):
    count = 0
    try:
        while count < 5000:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            count += 1
    except OSError as error:
        return [count, error.errno]
    return [count, 0]


def helper(event, context):
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    if event == "hang":
        time.sleep(60)
    return child.pid


def descriptors(event, context):
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + fd).split(":")[0])
        except FileNotFoundError:
            pass  # it was that of the listing
    return sorted(names)


def limits(event, context):
    return [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0] for name in ("NOFILE", "CORE", "AS")]


def litter(event, context):
    home = os.environ["HOME"]
    os.makedirs(home + "/a/b")
    open(home + "/a/b/c", "w").close()
    os.chmod(home + "/a", 0o500)
    return home


def pid(event, context):
    return os.getpid()


def burn(event, context):
    os.sched_setaffinity(0, {event["processor"]})
    with open(event["told"], "w") as told:
        told.write(str(os.getpid()))
    while not os.path.exists(event["stop"]):
        pass
'''


def need_cgroup(folder: Path) -> None:
    isolation = detect_isolation(marker(folder))
    isolation.close()
    if not isinstance(isolation, CgroupIsolation):
        pytest.skip("no cgroup with memory and pids can be written here")


@pytest.fixture(params=["cgroup", "rlimits"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    if request.param == "cgroup":
        need_cgroup(tmp_path)
    if request.param == "sandbox":
        program("bwrap")
    isolation = RlimitIsolation() if request.param == "rlimits" else None
    sandbox = IsolationOptions(isolation="bubblewrap") if request.param == "sandbox" else NO_ISOLATION
    async with pool(tmp_path, SOURCE, isolation=isolation, sandbox=sandbox, processes=100) as opened:
        yield opened


cgroup_only = pytest.mark.parametrize("opened", ["cgroup"], indirect=True)
rlimits_only = pytest.mark.parametrize("opened", ["rlimits"], indirect=True)


def groups(folder: Path) -> list[Path]:
    """Return the cgroups on this host of the engine with this folder's marker."""
    name = PREFIX + marker(folder)
    return [Path(path) / name for mount in cgroup_mounts() for path, below, _ in os.walk(mount) if name in below]


# --- limits ---


async def test_too_much_memory_is_4205_and_the_next_instance_is_well(opened: Pool) -> None:
    outcome = await opened.execute(function("hoard", memory_size=64), invocation())

    assert outcome.code == Code.OUT_OF_MEMORY
    assert outcome.message
    assert await result(opened, "pid", memory_size=64) > 0


@pytest.mark.parametrize(
    ("opened", "handler", "size"), [("cgroup", "spread", 200), ("rlimits", "crowd", 128)], indirect=["opened"]
)
async def test_memory_is_counted_for_all_processes_of_an_instance(opened: Pool, handler: str, size: int) -> None:
    outcome = await opened.execute(function(handler, memory_size=size), invocation())

    assert outcome.code == Code.OUT_OF_MEMORY


@cgroup_only
async def test_a_fork_bomb_is_held_and_its_processes_and_groups_are_gone_with_the_pool(
    opened: Pool, tmp_path: Path
) -> None:
    count, error = await result(opened, "bomb")
    assert groups(tmp_path)
    await opened.retire(1)
    await opened.close()

    assert (90 < count < 100, error, groups(tmp_path)) == (True, 11, [])
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []


@pytest.mark.parametrize("sandbox", [NO_ISOLATION, IsolationOptions(isolation="process")], ids=["spawned", "forked"])
async def test_what_variables_make_a_program_run_at_its_start_is_limited(
    tmp_path: Path, sandbox: IsolationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []  # whether a process already has the function's variables when its limits are applied
    admit = RlimitEnclosure.admit

    def look(enclosure: RlimitEnclosure, pid: int) -> None:
        seen.append(carries(pid, "LD_LIBRARY_PATH", "/nowhere"))
        admit(enclosure, pid)

    monkeypatch.setattr(RlimitEnclosure, "admit", look)
    async with pool(tmp_path, SOURCE, isolation=RlimitIsolation(), sandbox=sandbox) as opened:
        await result(opened, "limits", user_data={"LD_LIBRARY_PATH": "/nowhere"})

    assert seen == [False]


async def test_descriptors_and_core_files_are_limited(opened: Pool) -> None:
    assert (await result(opened, "limits"))[:2] == [2048, 0]


@rlimits_only
async def test_without_cgroup_address_space_is_limited(opened: Pool) -> None:
    assert (await result(opened, "limits", memory_size=100))[2] == (100 + 256) << 20


# --- descriptors and variables of a child ---


async def test_a_child_has_its_socket_and_its_output_and_nothing_else(opened: Pool) -> None:
    names = await result(opened, "descriptors")

    assert names == ["/dev/null", "pipe", "pipe", "socket"]


async def test_the_folder_of_an_instance_is_removed_whatever_it_left_there(opened: Pool, tmp_path: Path) -> None:
    home = await result(opened, "litter")
    assert os.listdir(home) == ["a"]
    dig(Path(home))

    await opened.close()

    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_start_removes_what_a_dead_engine_left_and_nothing_that_it_links_to(tmp_path: Path) -> None:
    tmp, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    for folder in (tmp / "instance", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "kept").touch()
    for link in (tmp / "link", tmp / "instance" / "link"):
        link.symlink_to(elsewhere)
    dig(tmp / "instance")

    kill_orphans(marker(tmp_path), tmp)

    assert (os.listdir(tmp), os.listdir(elsewhere)) == (["link"], ["kept"])


# --- cleanup ---


async def test_a_helper_in_a_session_of_its_own_dies_with_the_instance(opened: Pool) -> None:
    helper = await result(opened, "helper", "go")
    assert is_alive(helper)

    await opened.retire(1)

    await exit_of(helper)


@pytest.mark.parametrize("opened", ["cgroup", "rlimits", "sandbox"], indirect=True)
async def test_a_timeout_kills_helpers_too(opened: Pool, tmp_path: Path) -> None:
    outcome = await opened.execute(function("helper", timeout=1), invocation('"hang"'))

    assert outcome.code == Code.TIMEOUT
    for pid in list(marked("FUNCTIOND_ENGINE", marker(tmp_path))):
        if not carries(pid, "FUNCTIOND_INSTANCE", "0" * 32):  # not a template itself
            await exit_of(pid)


ENGINE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.executing import function, invocation, pool
from tests.integration.executors.test_isolation import SOURCE
from engine.executors.local.choice import IsolationOptions
from engine.isolation.rlimits import RlimitIsolation

OPTIONS = {
    "strongest": {},
    "rlimits": {"isolation": RlimitIsolation()},
    "sandbox": {"sandbox": IsolationOptions(isolation="bubblewrap")},
}

async def main():
    async with pool(Path(sys.argv[1]), SOURCE, marker=sys.argv[3], **OPTIONS[sys.argv[4]]) as opened:
        pid = await opened.execute(function("pid"), invocation())
        helper = await opened.execute(function("helper"), invocation('"go"'))
        print("up", pid.result.decode(), helper.result.decode(), flush=True)
        await opened.execute(function("helper"), invocation('"hang"'))

asyncio.run(main())
"""


def engine_process(folder: Path, mechanism: str) -> subprocess.Popen[bytes]:
    """Start another process with a pool. It prints the process ids of its instances, then hangs in a call."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", ENGINE, str(folder), root, marker(folder), mechanism]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def instances_of(engine: subprocess.Popen[bytes]) -> list[int]:
    """Wait until the instances run, then return their process ids. Log lines before that are skipped."""
    told = next(line for line in engine.stdout or () if line.startswith(b"up "))
    return [int(pid) for pid in told.split()[1:]]


@pytest.mark.parametrize("mechanism", ["strongest", "rlimits"])
async def test_what_a_killed_engine_left_is_ended_before_the_next_begins(tmp_path: Path, mechanism: str) -> None:
    with engine_process(tmp_path, mechanism) as dead:
        pid, helper = await asyncio.to_thread(instances_of, dead)
        dead.send_signal(signal.SIGKILL)
    await exit_of(pid)  # the instance exits when its socket is closed
    assert is_alive(helper)

    stuck = await asyncio.to_thread(kill_orphans, marker(tmp_path), tmp_path / "tmp")

    assert (stuck, is_alive(helper)) == ([], False)
    assert not [*marked("FUNCTIOND_ENGINE", marker(tmp_path)), *groups(tmp_path)]
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_a_child_inside_a_long_call_dies_with_the_engine(tmp_path: Path) -> None:
    with engine_process(tmp_path, "rlimits") as dead:
        await asyncio.to_thread(instances_of, dead)
        await until(lambda: len(programs(tmp_path, b"sleep(600)")) == 2)  # the second one belongs to the hanging call
        busy = programs(tmp_path, b"python_worker")
        dead.send_signal(signal.SIGKILL)

    assert busy
    for pid in busy:
        await exit_of(pid)
    assert await asyncio.to_thread(kill_orphans, marker(tmp_path)) == []


def programs(folder: Path, word: bytes) -> list[int]:
    """Return the processes of the engine on this folder whose command contains ``word``."""
    pids = []
    for pid in marked("FUNCTIOND_ENGINE", marker(folder)):
        with suppress(OSError):  # the process has exited meanwhile
            if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(pid)
    return pids


def test_orphans_of_another_engine_are_not_touched(tmp_path: Path) -> None:
    environment = {"FUNCTIOND_ENGINE": "of-another"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as other:
        kill_orphans("of-anothe", tmp_path)
        kill_orphans("other", tmp_path)

        assert other.poll() is None
        other.kill()


# --- cgroups of other engines ---


async def test_groups_of_an_engine_that_never_comes_back_are_swept_by_another(tmp_path: Path) -> None:
    need_cgroup(tmp_path)
    with engine_process(tmp_path, "strongest") as dead:
        pid, _ = await asyncio.to_thread(instances_of, dead)
        dead.send_signal(signal.SIGKILL)
    await exit_of(pid)

    detect_isolation(f"{marker(tmp_path)}-b").close()
    assert groups(tmp_path), "something still lives there"

    def left() -> list[Path]:
        for pid in marked(
            "FUNCTIOND_ENGINE", marker(tmp_path)
        ):  # the engine may have started more instances before the kill
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        detect_isolation(f"{marker(tmp_path)}-b").close()
        return groups(tmp_path)

    await until(
        lambda: not left()
    )  # retried: a killed process leaves its cgroup late, and another engine may be sweeping


def test_the_groups_of_a_living_engine_are_not_swept_though_it_has_no_instance(tmp_path: Path) -> None:
    need_cgroup(tmp_path)
    living = detect_isolation(marker(tmp_path))
    before = groups(tmp_path)

    detect_isolation(f"{marker(tmp_path)}-b").close()

    assert groups(tmp_path) == before != []
    living.close()


def test_a_group_that_is_claimed_while_others_sweep_is_there(tmp_path: Path) -> None:
    need_cgroup(tmp_path)
    held = detect_isolation(marker(tmp_path))
    own = groups(tmp_path)[0]
    folder = own.with_name(f"{own.name}-b")
    done = threading.Event()

    def others() -> None:
        while not done.is_set():
            remove_stale_groups(folder)

    sweeper = threading.Thread(target=others)
    sweeper.start()
    missing = 0
    for _ in range(500):
        with group_locked(folder):
            missing += not folder.is_dir()
    done.set()
    sweeper.join()
    remove_stale_groups(folder)

    assert (missing, folder.exists()) == (0, False)
    held.close()


# --- processors ---


@cgroup_only
async def test_instances_that_compete_for_a_processor_get_it_in_proportion_to_their_cpu(
    opened: Pool, tmp_path: Path
) -> None:
    if "without CPU weights" in opened.walls["isolation"]:
        pytest.skip("no cgroup with cpu can be written here")
    event = {"processor": min(os.sched_getaffinity(0)), "stop": str(tmp_path / "stop")}
    running, pids = [], []
    for memory in (128, 2048):  # 0.3 and 1.8 CPUs
        os.mkfifo(told := tmp_path / f"told-{memory}")
        running.append(asyncio.ensure_future(result(opened, "burn", event | {"told": str(told)}, memory_size=memory)))
        pids.append(await asyncio.to_thread(told.read_text))
    before = [ticks(pid) for pid in pids]

    def used() -> list[int]:
        return [ticks(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]

    async with asyncio.timeout(60):
        await until(lambda: sum(used()) > 100)  # a second
    small, large = used()
    (tmp_path / "stop").touch()
    await asyncio.gather(*running)

    assert large > 3 * small  # 6 times, when measured for long


def ticks(pid: str) -> int:
    """Return the processor time of a process in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_without_the_controller_cpu_the_other_limits_hold_and_the_name_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stands in a folder for the hierarchy: its groups have no files."""
    need_cgroup(tmp_path)
    mounts = list(detect._mounts())
    if not any(kind == "cgroup" and "memory" in options.split(",") for _, _, kind, options in mounts):
        pytest.skip("no cgroup of version 1 can be written here")
    changed = [
        (tmp_path if "cpu" in options.split(",") else mount, root, kind, options)
        for mount, root, kind, options in mounts
    ]
    monkeypatch.setattr(detect, "_mounts", lambda: iter(changed))

    isolation = detect_isolation(marker(tmp_path))
    isolation.close()

    assert (isolation.name, list(tmp_path.iterdir())) == ("cgroup v1 without CPU weights", [])


# --- mechanisms ---


@pytest.mark.parametrize("bad", ["", "a/b", "a b", "x" * 200, "..\n"])
def test_a_marker_must_be_fit_for_a_name(bad: str) -> None:
    with pytest.raises(ValueError, match="marker"):
        check_marker(bad)


def test_version_2_kills_and_removes_a_whole_group(tmp_path: Path) -> None:
    mount = next((m for m in cgroup_mounts() if (m / "cgroup.controllers").exists()), None)
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no cgroup of version 2 can be written here")
    bare = Layout(name="bare", settings=(), oom_file="memory.events", procs_file="cgroup.procs", anonymous="anon ")
    group = CgroupEnclosure(bare, {"memory": mount / marker(tmp_path)}, Limits(memory=1, processes=1, cpu=1000))
    group.create()
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & echo up; sleep 60"], stdout=subprocess.PIPE) as shell:
        group.admit(shell.pid)
        assert members(mount / marker(tmp_path)) != []
        group.kill()

    group.remove()

    assert not (mount / marker(tmp_path)).exists()


def test_version_2_writes_memory_processes_and_weight_and_reads_its_count_of_kills(tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    files = ("memory.max", "memory.swap.max", "pids.max", "cpu.weight", "cgroup.procs")
    limits = Limits(memory=3, processes=7, cpu=300, tmp=2)
    group = CgroupEnclosure(V2, dict.fromkeys(("memory", "pids", "cpu"), folder), limits)
    folder.mkdir()
    for file in files:  # the kernel creates these files with the cgroup
        (folder / file).touch()

    group.write_limits()
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (folder / "memory.stat").write_text("anon 4096\nfile 12288\n")

    assert [(folder / file).read_text() for file in files] == [str(5 << 20), "0", "7", "30", ""]
    assert (group.out_of_memory(), group.anonymous(), group.alarm()) == (True, 4096, None)
