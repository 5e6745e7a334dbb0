"""Bridge process: start of ``bootstrap``, its environment, and the end of both."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bridging import MAX_WAIT, READY, TELL_ADDRESS, Bridge, Runtime

CUSTOM = "/v1/runtime/invocation/"
NODE = "/opt/function/runtime/nodejs20.15/rtsp/nodejs/bin/node"
NUL, OURS = "\0", {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


@pytest.mark.parametrize(
    ("bootstrap", "told"),
    [
        (None, "function entry exception, error: there is no file bootstrap in the root folder"),
        ("#!/no/such/shell\n", "bootstrap cannot be started: No such file or directory; see that the interpreter"),
        (
            f"\x7fELF\x02\x01\x01{NUL * 9}\x02\0\udcb7\0",
            f"for arm64 Linux, and this machine is {OURS} Linux: build it for this",
        ),
        (f"\udccf\udcfa\udced\udcfe\f{NUL * 9}", f"program for macOS, and this machine is {OURS} Linux: build"),
        (
            f"MZ\udc90{NUL * 9}",
            f"Windows, and this machine is {OURS} Linux: build it for this machine, with Go by",
        ),
        (f"PK\x03\x04{NUL * 9}", "bootstrap is neither a script nor a program for Linux"),
        ("#!/bin/sh\r\necho\r\n", "bootstrap has lines that end with CRLF, as on Windows"),
        (
            f"#!{NODE}\n",
            f"directory; bootstrap names {NODE}, and functions have /opt/function in a sandbox",
        ),
    ],
)
def test_a_bootstrap_that_cannot_be_started_is_told(tmp_path: Path, bootstrap: str | None, told: str) -> None:
    with Bridge("custom", tmp_path, {"bootstrap": bootstrap} if bootstrap else {}) as bridge:
        answer = bridge.answer()

    assert (answer.kind, answer.code, answer.error["errorType"]) == (READY, 4001, "FunctionLoadError")
    assert told in answer.message


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (f"{NODE} $RUNTIME_CODE_ROOT/index.js", f"status 127 before it answered: bootstrap names {NODE}, and"),
        ("cd /\r\nexec /bin/true\r\n", "status 127 before it answered: bootstrap has lines that end with CRLF"),
    ],
)
def test_a_bootstrap_that_ends_early_is_told_what_it_lacks(tmp_path: Path, last: str, told: str) -> None:
    with Bridge("http", tmp_path, {"bootstrap": last}, maps_port=True) as bridge:
        answer = bridge.answer()

        assert (answer.kind, answer.code, told in answer.message) == (READY, 4201, True)
        assert bridge.process.wait() == 127


def test_a_bootstrap_that_names_no_interpreter_is_for_the_shell(tmp_path: Path) -> None:
    with Bridge("custom", tmp_path, {"bootstrap": "echo here $0"}) as bridge:
        assert bridge.line().startswith("here ")


def test_bootstrap_gets_the_functions_environment_and_the_address(tmp_path: Path) -> None:
    tell = f"#!/bin/sh\nexec {sys.executable} -c 'import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))'"
    with Bridge("custom", tmp_path, {"bootstrap": tell}) as bridge:
        variables, folder = json.loads(bridge.line())

    address = variables.pop("RUNTIME_API_ADDR")
    assert address.startswith("127.0.0.1:")
    assert set(variables) - {"PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"} == {
        "PATH",
        "PYTHONPATH",
        "RUNTIME_PYTHON",
        "RUNTIME_REGION",
        "RUNTIME_USERDATA",
    }
    assert folder == str(tmp_path / "code")


def test_a_lambda_bootstrap_gets_the_variables_that_its_clients_read(tmp_path: Path) -> None:
    with Bridge("lambda", tmp_path, {"bootstrap": "#!/bin/sh\nenv\necho .\n"}, version="3") as bridge:
        variables = dict(line.split("=", 1) for line in iter(bridge.line, "."))

    assert variables["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert (variables["_HANDLER"], variables["LAMBDA_TASK_ROOT"]) == ("index.handler", str(tmp_path / "code"))
    assert (variables["AWS_LAMBDA_FUNCTION_NAME"], variables["AWS_LAMBDA_FUNCTION_VERSION"]) == ("f", "3")
    assert (variables["AWS_REGION"], variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) == ("local-1", "128")


def test_a_layer_brings_programs_modules_and_even_the_bootstrap(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "bin").mkdir(parents=True)
    (layer / "python").mkdir()
    (layer / "bootstrap").write_text('#!/bin/sh\necho "$PATH"\necho "$PYTHONPATH"\n')
    (layer / "bootstrap").chmod(0o755)
    with Bridge("lambda", tmp_path, {}, layers=[str(layer)]) as bridge:
        path, python = bridge.line(), bridge.line()

    assert path.endswith(f":{layer}/bin")
    assert python == f"{tmp_path / 'code'}:{layer}/python:{layer}/"


def test_the_python3_of_a_bootstrap_is_the_engines_and_finds_its_dependencies(tmp_path: Path) -> None:
    tell = "import json, sys, tiny\nprint(json.dumps([sys.executable, sys.version_info[:2], sys.argv[1:]]))\n"
    files = {"bootstrap": "#!/bin/sh\nmkdir src\nmv main.py src\nexec python3 src/main.py 'a  b'\n", "main.py": tell}
    with Bridge("http", tmp_path, {**files, "tiny.py": ""}) as bridge:
        assert json.loads(bridge.line()) == [sys.executable, [*sys.version_info[:2]], ["a  b"]]


def test_a_function_with_a_path_of_its_own_chooses_its_python3(tmp_path: Path) -> None:
    with Bridge(
        "custom", tmp_path, {"bootstrap": '#!/bin/sh\necho "$PATH"\n'}, user_data={"PATH": os.environ["PATH"]}
    ) as bridge:
        assert bridge.line() == os.environ["PATH"]


def test_no_descriptor_of_the_bridge_is_left_open_for_bootstrap(tmp_path: Path) -> None:
    tell = f"#!{sys.executable} -I\nimport os\nprint(sorted(map(int, os.listdir('/proc/self/fd'))))\n"
    with Bridge("custom", tmp_path, {"bootstrap": tell}) as bridge:
        *_, listing = json.loads(bridge.line())

    assert listing == 3  # the descriptor of the listing itself


def test_ignored_signals_are_not_passed_on(tmp_path: Path) -> None:
    tell = "#!/bin/sh\ngrep SigIgn /proc/self/status\n"
    with Bridge("custom", tmp_path, {"bootstrap": tell}) as bridge:
        ignored = int(bridge.line().split()[1], 16)

    assert ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | 1 << signal.SIGTERM - 1) == 0


@pytest.mark.parametrize(("last", "status"), [("exit 3", 3), ("exit 0", 0), ("kill -SEGV $$", -signal.SIGSEGV)])
def test_the_bridge_ends_as_bootstrap_does(tmp_path: Path, last: str, status: int) -> None:
    with Bridge("custom", tmp_path, {"bootstrap": f"#!/bin/sh\n{last}\n"}) as bridge:
        assert bridge.process.wait() == status


def test_what_bootstrap_has_not_asked_for_stays_unread_when_it_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "end")
    boot = f'#!/bin/sh\necho "$RUNTIME_API_ADDR"\nexec cat {tmp_path}/end'
    with Bridge("custom", tmp_path, {"bootstrap": boot}) as bridge:
        with Runtime(bridge, CUSTOM) as runtime:
            runtime.get("request")
            bridge.answer()
            bridge.invoke()
            runtime.response()
            runtime.post("response/r-1", b"")
            bridge.answer()
        bridge.invoke(request_id="r-2")
        (tmp_path / "end").write_text("")
        bridge.process.wait()

        with pytest.raises(ConnectionResetError):  # the reset shows the engine that r-2 has not run
            bridge.answer()


def test_a_stop_is_a_sigterm_for_all_that_bootstrap_has_started(tmp_path: Path) -> None:
    child = "sh -c 'echo $$; exec sleep 1000' &\n"
    tell = f"#!/bin/sh\ntrap 'echo stopping; exit 5' TERM\n{child}echo $RUNTIME_API_ADDR\nwait\n"
    with Bridge("custom", tmp_path, {"bootstrap": tell}) as bridge:
        pid, address = sorted((bridge.line(), bridge.line()), key=lambda line: ":" in line)
        pidfd = os.pidfd_open(int(pid))
        with Runtime(bridge, CUSTOM, address) as runtime:
            runtime.get("request")
            bridge.answer()

            bridge.stop()

            assert bridge.line() == "stopping"
            assert bridge.process.wait() == 0
            assert_ends(pidfd)


@pytest.mark.parametrize("end", [lambda bridge: bridge.socket.close(), lambda bridge: bridge.process.kill()])
def test_bootstrap_does_not_outlive_the_bridge(tmp_path: Path, end: Callable[[Bridge], None]) -> None:
    with Bridge("custom", tmp_path, {"bootstrap": "#!/bin/sh\necho $$\n" + TELL_ADDRESS}) as bridge:
        pidfd = os.pidfd_open(int(bridge.line()))
        bridge.line()
        end(bridge)
        bridge.process.wait()

        assert_ends(pidfd)


def assert_ends(pidfd: int) -> None:
    assert select.select([pidfd], [], [], MAX_WAIT)[0]
    os.close(pidfd)


def test_with_the_engine_ends_all_that_bootstrap_has_started(tmp_path: Path) -> None:
    orphan = "(setsid sh -c 'echo $$; exec sleep 1000' &)\n"
    with Bridge("custom", tmp_path, {"bootstrap": f"#!/bin/sh\n{orphan}exec sleep 1000\n"}) as bridge:
        pidfd = os.pidfd_open(int(bridge.line()))

        bridge.socket.close()

        assert_ends(pidfd)


def test_the_peak_of_memory_is_that_of_all_processes(tmp_path: Path) -> None:
    eat = f"{sys.executable} -I -c 'import time; fat = bytearray(50 << 20); print(flush=True); time.sleep(1000)' &\n"
    boot = f'#!/bin/sh\necho "$RUNTIME_API_ADDR"\n{eat}{eat}wait\n'
    with Bridge("custom", tmp_path, {"bootstrap": boot}) as bridge, Runtime(bridge, CUSTOM) as runtime:
        bridge.line()
        bridge.line()
        runtime.get("request")

        assert 100 << 10 < bridge.answer().memory < 250 << 10


def test_the_runtime_api_is_not_there_for_strangers(tmp_path: Path) -> None:
    def ask(runtime: Runtime) -> None:
        runtime.get("request")
        runtime.response()

    guarded = Bridge("custom", tmp_path, {"bootstrap": TELL_ADDRESS}, guarded=True)
    with guarded, Runtime(guarded, CUSTOM) as runtime, pytest.raises(ConnectionError):
        ask(runtime)


def test_the_runtime_api_is_there_for_what_bootstrap_has_started(tmp_path: Path) -> None:
    ask = f"#!/bin/sh\n(curl -sS http://$RUNTIME_API_ADDR{CUSTOM}request; echo) &\nwait\n"
    with Bridge("custom", tmp_path, {"bootstrap": ask}, guarded=True) as bridge:
        assert bridge.answer().kind == READY
        bridge.invoke(b"[7]")

        assert bridge.line() == "[7]"


def test_a_stranger_that_answers_and_resets_its_connection_is_not_heard(tmp_path: Path) -> None:
    os.mkfifo(go := tmp_path / "go")
    api = f"curl -sS http://$RUNTIME_API_ADDR{CUSTOM}"
    boot = f"#!/bin/sh\necho $RUNTIME_API_ADDR\n{api}request\necho\ncat {go}\n{api}response/r-1 -d own\n"
    with Bridge("custom", tmp_path, {"bootstrap": boot}, guarded=True) as bridge:
        host, _, port = bridge.line().partition(":")
        assert bridge.answer().kind == READY
        bridge.invoke(b"[7]")
        assert bridge.line() == "[7]"

        os.kill(bridge.process.pid, signal.SIGSTOP)  # so that the connection is gone when the bridge looks at it
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(f"POST {CUSTOM}response/r-1 HTTP/1.1\r\nContent-Length: 6\r\n\r\nforged".encode())
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.kill(bridge.process.pid, signal.SIGCONT)
        go.write_text("")

        assert bridge.answer().result == b"own"


def test_a_kernel_that_names_no_peers_serves_no_runtime_api(tmp_path: Path) -> None:
    """Have the kernel refuse netlink, as some do that have no tcp_diag."""
    with Bridge("custom", tmp_path, {"bootstrap": TELL_ADDRESS}, guarded=True, prelude=_NO_NETLINK) as bridge:
        answer = bridge.answer()

    assert (answer.kind, answer.code) == (READY, 4201)
    assert "load its module tcp_diag" in answer.message


#: Seccomp filter: the system call ``socket`` fails with EAFNOSUPPORT for the family 16.
_NO_NETLINK = """
import ctypes, platform, struct
call = {"x86_64": 41, "aarch64": 198}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, call), (0x20, 0, 0, 16), (0x15, 0, 1, 16)]
steps += [(6, 0, 0, 0x50061), (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, struct.pack("@HP", len(steps), ctypes.addressof(code)))
"""
