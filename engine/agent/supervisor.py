"""Node supervisor: starts the agent, and kills it with all that it has started when the lease is over.

The agent runs in a new pid namespace, as the child of process 1. When process 1 is killed, the kernel ends all others
of the namespace before the program ``unshare`` notices. Its exit therefore proves that nothing runs any more. The next
agent or the exit status tells the engine so. When the supervisor is killed, the kernel kills ``unshare`` and process 1.

Without namespaces, the supervisor kills the processes that have the marker in their environment.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from msgspec.structs import replace

from engine.agent import first
from engine.agent.link import LARGEST, Configuration, Report, decode_report, encode, now
from engine.errors import SettingsError
from engine.isolation.detect import detect_isolation
from engine.isolation.limits import is_root
from engine.isolation.orphans import kill_orphans
from engine.storage.data_directory import close_to_others, locked, marker_of

_DELAY, _LONGEST_DELAY, _LONGEST_REFUSED = 0.1, 5.0, 30.0  #: seconds until the next agent starts
_NEVER = float("inf")
_SLICE = 0.2  #: seconds of a wait. The clock of a longer one would not count the time of a suspended machine
_PDEATHSIG = 1  #: option of prctl(2)
_CREDENTIALS = struct.Struct("iii")  #: pid, user and group of the process that sent a message
_NAMESPACE = ("--pid", "--fork", "--kill-child", "--mount-proc")

ReadToken = Callable[[], tuple[str, str]]

log = structlog.get_logger("functiond.agent")


def supervise(configuration: Configuration, read_token: ReadToken, once: bool = False) -> bool:
    """Run agents until SIGTERM or SIGINT, or until the engine sends one away. Call in the main thread.

    ``read_token`` returns the token and the fingerprint, or raises SettingsError. With ``once``, run one agent only.
    Return whether certainly nothing of the agents runs any more. Raises DataDirectoryLocked or DataDirectoryUnusable if
    the data directory cannot be used.
    """
    folder = configuration.folder
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # also of the agent: its memory has the token and secrets
    with locked(folder):
        close_to_others(folder)
        namespace, kills = _find_namespace(), "pid namespace"
        if not namespace:
            log.warning("no pid namespace can be made: processes that clear their environment may outlive the lease")
            kills = "marker in the environment"
        configuration = replace(configuration, marker=marker_of(folder, "agent"), kills=kills)
        supervisor = Supervisor(configuration, read_token, namespace, once)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        return supervisor.run()


class Supervisor:
    """Supervisor of one agent after the other. The data directory is locked.

    ``namespace`` is the beginning of a command whose program is process 1 of a new namespace; empty: there is none.
    """

    def __init__(
        self, configuration: Configuration, read_token: ReadToken, namespace: Sequence[str], once: bool = False
    ) -> None:
        self._configuration, self._read_token, self._namespace = configuration, read_token, namespace
        self._stopping = False
        self._stuck: list[int] = []  #: processes that could not be killed
        self._last = once  #: no agent follows: there is one token, or the engine has sent the agent away
        self._session = ""  #: the last in which instances may have been started
        self._deadline = _NEVER  #: of the agent that runs, or ran last, since it was welcomed
        self._refused = False  #: the same agent
        self._first: int | None = None  #: pidfd of process 1

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> bool:
        delay = _DELAY
        self._kill_orphans()
        # Cgroups of version 2 have limits only if no process is beside them: this one leaves its group for one below.
        detect_isolation(self._configuration.marker).close()
        while not self._stopping:
            self._run_agent()
            if self._last:
                break
            if self._deadline < _NEVER and not self._refused:
                delay = _DELAY
            end = time.monotonic() + delay
            while not self._stopping and time.monotonic() < end:
                time.sleep(min(_SLICE, delay))
            delay = min(2 * delay, _LONGEST_REFUSED if self._refused else _LONGEST_DELAY)
        return not self._stuck

    def _run_agent(self) -> None:
        """Start an agent, and return when nothing of it is left."""
        self._deadline, self._refused, self._first = _NEVER, False, None
        try:
            token, fingerprint = self._read_token()  # each time: the operator may have replaced it
        except SettingsError as error:
            log.error("no agent started", problem=str(error))
            self._refused = True
            return
        told = {"token": token, "fingerprint": fingerprint, "previous": self._session}
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with theirs:
                try:
                    process = subprocess.Popen(
                        [*self._namespace, sys.executable, "-I", "-S", first.__file__],
                        stdin=theirs.fileno(),
                        preexec_fn=die_with_parent(),
                        start_new_session=True,  # a terminal's SIGINT is for the supervisor
                    )
                except OSError as error:  # such as for lack of memory or processes
                    log.error("no agent started", problem=str(error))
                    return
            try:
                with suppress(OSError):  # it has exited
                    link.send(encode(replace(self._configuration, **told)))
                over = self._watch(link)
            finally:
                self._kill(process)
                while self._read(link):  # what it sent before its end
                    pass
                if self._first is not None:
                    os.close(self._first)
                self._kill_orphans()
        if over:  # told last, because it waits for the reader of the log
            log.warning("no sign of the engine within the lease: all instances were killed")

    def _watch(self, link: socket.socket) -> bool:
        """Read reports until the agent must end, or has ended. Return whether the lease is over."""
        waiting = select.poll()
        waiting.register(link, select.POLLIN)
        while not self._stopping:
            left = self._deadline - now()
            if left <= 0:
                return True
            if waiting.poll(min(left, _SLICE) * 1000) and not self._read(link):
                break
        return False

    def _read(self, link: socket.socket) -> bool:
        """Read a report. Return False if there is none, and none will come."""
        try:
            data, ancillary, _, _ = link.recvmsg(LARGEST, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_DONTWAIT)
        except OSError:
            return False
        if not data:
            return False
        if self._first is None:
            with suppress(ProcessLookupError):
                self._first = os.pidfd_open(_CREDENTIALS.unpack(ancillary[0][2])[0])
        self._take(decode_report(data))
        return True

    def _take(self, report: Report) -> None:
        self._session = report.session or self._session
        self._deadline = report.deadline or self._deadline
        self._refused = self._refused or report.refused
        self._last = self._last or report.left

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill all processes of the agent, and wait for their exit."""
        if self._first is not None and self._namespace:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        else:  # it has started nothing yet, or is in no namespace
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _kill_orphans(self) -> None:
        """Kill what is not in the namespace, and remove cgroups and temporary files."""
        self._stuck = kill_orphans(self._configuration.marker, self._configuration.tmp)
        if self._stuck:
            log.error("processes cannot be killed, because they hang in the kernel", pids=self._stuck)
            self._session = ""  # the engine waits for the end of the lease


def die_with_parent() -> Callable[[], None]:
    """Return a function that a new process calls to be killed at the end of the thread that started it."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def call() -> None:
        prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return call


def _find_namespace() -> Sequence[str]:
    """Return the beginning of a command that makes a namespace, if one can be made here. Blocks for milliseconds."""
    program = shutil.which("unshare")
    options = _NAMESPACE if is_root() else ("--user", "--map-current-user", *_NAMESPACE)
    if program is not None:
        tried = subprocess.run([program, *options, "true"], stdin=subprocess.DEVNULL, capture_output=True)
        if tried.returncode == 0:
            return (program, *options)
    return ()
