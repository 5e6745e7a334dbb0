"""System calls of functions that the seccomp filter refuses, in each kind of start and family of runtimes."""

from __future__ import annotations

import json
import platform
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pyseccomp
import pytest
from structlog.testing import capture_logs

from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.local.spawners import HostSpawner
from engine.isolation import seccomp
from engine.runtimes.interpreters import Interpreters, own_interpreter
from tests.contracts.dialect import Dialect
from tests.contracts.dialect_bootstrap import CUSTOM, HTTP
from tests.contracts.dialect_node import NODE
from tests.contracts.dialect_python import PYTHON
from tests.support.bridging import needs_mapping
from tests.support.executing import function, invocation, local_spawner, pool
from tests.support.programs import needs

#: Program that tries all refused calls, and prints names of errors, "" for success. Harmless where they are permitted.
ATTACK = """
import ctypes, errno, json, multiprocessing, os, signal, socket, subprocess, threading

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = json.load(open(os.path.dirname(os.path.abspath(__file__)) + "/numbers.json"))
NEW_USER = 0x10000000
PARAMETERS = ctypes.create_string_buffer(120)


def call(name, *args):
    ctypes.set_errno(0)
    result = libc.syscall(NUMBERS[name], *map(ctypes.c_long, args))
    if name == "clone" and result == 0:
        os._exit(0)
    return errno.errorcode.get(ctypes.get_errno(), "")


def in_child(attack):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, attack().encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    return os.read(reader, 100).decode()


def trace_sibling():
    sibling = os.fork()
    if sibling == 0:
        signal.pause()
    answer = call("ptrace", 16, sibling, 0, 0)
    os.kill(sibling, signal.SIGKILL)
    os.waitpid(sibling, 0)
    return answer


def mount_in_own_namespace():
    call("unshare", NEW_USER | 0x20000)
    return "" if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0 else errno.errorcode[ctypes.get_errno()]


def run_program32():
    try:
        return subprocess.call([os.path.dirname(os.path.abspath(__file__)) + "/program32"])
    except OSError as error:  # on other machines
        return errno.errorcode[error.errno]


def works():
    thread = threading.Thread(target=lambda: None)
    thread.start(), thread.join()
    with multiprocessing.get_context("fork").Pool(1) as workers:
        assert workers.map(abs, [-1]) == [1]
    spawned = os.posix_spawn("/bin/true", ["true"], {})
    codes = [os.waitpid(spawned, 0)[1], subprocess.call(["true"]), subprocess.call("true", preexec_fn=os.setsid)]
    return [*codes, libc.unshare(0x400)]  # descriptors of its own, no namespace


def family(number, kind):
    try:
        socket.socket(number, kind).close()
    except OSError as error:
        return errno.errorcode[error.errno]


def outcome():
    return {
        "families": [family(38, socket.SOCK_SEQPACKET), family(40, socket.SOCK_STREAM)],
        "invalid": {name: call(name, -1, -1, -1, -1, -1, -1) for name in NUMBERS},
        "namespace": in_child(lambda: call("unshare", NEW_USER)),
        "clone": in_child(lambda: call("clone", NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)),
        "mount": in_child(mount_in_own_namespace),
        "sibling": trace_sibling(),
        "io_uring": call("io_uring_setup", 1, ctypes.addressof(PARAMETERS)),
        "keyring": call("keyctl", 0, -4, 1),
        "clone3": call("clone3", 0, 0),
        "32-bit program": run_program32(),
        "works": works(),
    }


def handler(event, context):
    return outcome()


if __name__ == "__main__":
    print(json.dumps(outcome()))
"""
ON_NODE = """
const { execFileSync } = require("node:child_process");
exports.handler = async () => JSON.parse(execFileSync("/usr/bin/python3", ["-I", __dirname + "/attack.py"]));
"""
FORKED = IsolationOptions(isolation="process", fork_server="start")
SANDBOXED = IsolationOptions(isolation="bubblewrap")


def program32() -> bytes:
    """Return a program for 32-bit x86 that exits with status 42: mov eax, 1; mov ebx, 42; int 0x80."""
    code, base, head = bytes.fromhex("b801000000bb2a000000cd80"), 0x08048000, 84
    size = head + len(code)
    file = struct.pack(
        "<16s2H5I6H", b"\x7fELF\x01\x01\x01", 2, 3, 1, base + head, 52, 0, 0, 52, 32, 1, 0, 0, 0
    ) + struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096)
    return file + code


def number(name: str | int) -> int:
    return name if isinstance(name, int) else pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)


def write(folder: Path, dialect: Dialect) -> None:
    """Write a function whose every answer is the outcome of the attack."""
    dialect.write(folder)
    (folder / "attack.py").write_text(ATTACK)
    numbers = {str(name): number(name) for name in (*seccomp.DENIED, "clone", "clone3", "unshare")}
    (folder / "numbers.json").write_text(json.dumps({name: value for name, value in numbers.items() if value >= 0}))
    if dialect is PYTHON:
        (folder / "index.py").write_text("from attack import handler\n")
    elif dialect is NODE:
        (folder / "index.js").write_text(ON_NODE)
    else:
        with (folder / "deeds.py").open("a") as deeds:
            deeds.write("\nimport attack\ndeed = lambda wish, request_id: json.dumps(attack.outcome())\n")
    program = folder / "program32"
    program.write_bytes(program32())
    program.chmod(0o755)


@pytest.mark.parametrize(
    "dialect",
    [
        pytest.param(PYTHON, id="Python"),
        pytest.param(NODE, id="Node.js", marks=needs("node")),
        pytest.param(CUSTOM, id="Custom"),
        pytest.param(HTTP, id="http", marks=needs_mapping),
    ],
)
@pytest.mark.parametrize(
    "sandbox",
    [
        pytest.param(SANDBOXED, id="sandboxed", marks=needs("bwrap")),
        pytest.param(FORKED, id="forked"),
        pytest.param(NO_ISOLATION, id="spawned"),
    ],
)
async def test_attacks_on_the_kernel_are_refused_and_programs_work(
    tmp_path: Path, sandbox: IsolationOptions, dialect: Dialect
) -> None:
    interpreters = Interpreters(python=own_interpreter().path)
    async with pool(tmp_path, "", sandbox=sandbox, interpreters=interpreters) as opened:
        write(tmp_path / "code", dialect)
        if isinstance(spawner := local_spawner(opened), HostSpawner) and sandbox is FORKED:
            await spawner.template(own_interpreter().path).ready.wait()  # otherwise a new program
        outcomes = json.loads(dialect.given(await opened.execute(dialect.function(), dialect.wish("text"))))

    invalid, program32 = outcomes.pop("invalid"), outcomes.pop("32-bit program")
    assert outcomes.pop("works") == [0, 0, 0, 0]
    assert outcomes.pop("families") == ["EAFNOSUPPORT", "EAFNOSUPPORT"]
    assert (invalid.pop("clone3"), outcomes.pop("clone3")) == ("ENOSYS", "ENOSYS")
    assert {name: answer for name, answer in (invalid | outcomes).items() if answer != "EPERM"} == {}
    assert program32 == (-signal.SIGSYS if platform.machine() == "x86_64" else "ENOEXEC")


def no_library(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "pyseccomp")
    patch.setattr("ctypes.util.find_library", lambda name: None)


def refuse(patch: pytest.MonkeyPatch) -> None:
    def load(rules: pyseccomp.SyscallFilter) -> None:
        raise PermissionError(1, "Operation not permitted")

    patch.setattr(pyseccomp.SyscallFilter, "load", load)


def ignore(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pyseccomp.SyscallFilter, "load", lambda rules: None)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        (no_library, "Unable to find libseccomp: install it (Debian's package libseccomp2)"),
        (refuse, "the kernel refuses it: [Errno 1] Operation not permitted"),
        (ignore, "the kernel refuses it: it has no effect"),
    ],
)
async def test_a_machine_without_filters_runs_functions_and_says_so(
    tmp_path: Path, lacking: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    with capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        lacking(patch)
        async with pool(tmp_path, "def handler(event, context):\n    return 1\n") as opened:
            outcome = await opened.execute(function("handler"), invocation())

    assert (outcome.result, opened.walls["isolation"].rpartition(", ")[2]) == (b"1", "no seccomp")
    assert [line["reason"] for line in logs if line["event"] == "functions run without a seccomp filter"] == [reason]
