"""Search for the processes that have an environment variable, and a kill that waits for the exit of processes.

The engine sets the variable for each instance. Every process that an instance starts inherits the variable, in any
session or process group. Only a process that clears its environment on purpose is not found. Without cgroups there is
no better way to find these processes.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

PAGE = os.sysconf("SC_PAGE_SIZE")
MAX_WAIT = 10.0  #: seconds until a killed process must have exited; after that it hangs in the kernel


def marked(name: str, value: str) -> Iterator[int]:
    """Yield the ids of all processes except this one that have ``name=value`` in their environment."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and carries(int(entry), name, value):
            yield int(entry)


def carries(pid: int, name: str, value: str) -> bool:
    """Return whether a process has ``name=value`` in its environment.

    Return False if the process has exited, is a zombie, or cannot be inspected.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{name}={value}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def resident(roots: Sequence[int]) -> dict[int, int]:
    """Return the bytes of resident memory for each process in ``roots``, its descendants and its session together."""
    parents, sessions, sizes = {}, {}, {}
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            with open(f"/proc/{int(entry)}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            pid = int(entry)
            parents[pid], sessions[pid], sizes[pid] = int(fields[1]), int(fields[3]), int(fields[21])
    totals = dict.fromkeys(roots, 0)
    for pid, size in sizes.items():
        owner = pid
        while owner not in totals and owner in parents:
            owner = parents[owner]
        owner = owner if owner in totals else sessions[pid]
        if owner in totals:
            totals[owner] += size * PAGE
    return totals


def kill_marked(name: str, value: str) -> list[int]:
    """Kill all processes that have ``name=value`` in their environment, and wait for their exit.

    Return the processes that did not exit within ``MAX_WAIT``.
    """
    stuck: list[int] = []
    while pids := [pid for pid in marked(name, value) if pid not in stuck]:
        stuck += kill_and_wait(pids, lambda pid: carries(pid, name, value))
    return stuck


def kill_and_wait(pids: list[int], is_target: Callable[[int], bool]) -> list[int]:
    """Kill these processes and wait for their exit. Return the processes that did not exit within ``MAX_WAIT``.

    A process is killed only if ``is_target`` returns True for its pid. The check is made while a pidfd of the process
    is open, because the pid may have been reused before.
    """
    for pid in pids:
        with _pidfd(pid) as fd:
            if fd is not None and is_target(pid):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
    return [pid for pid in pids if not _wait_for_exit(pid, is_target)]


def _wait_for_exit(pid: int, is_target: Callable[[int], bool]) -> bool:
    """Wait for the exit of a process. Return False if it did not exit within ``MAX_WAIT``.

    A process for which ``is_target`` returns False counts as exited, because its pid was reused.
    """
    with _pidfd(pid) as fd:
        if fd is None or not is_target(pid):
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(MAX_WAIT * 1000))


@contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """Provide a pidfd of the process until the block ends. Provide None if the process has exited.

    Callers open one pidfd at a time, because a fork bomb has more processes than this process may have open
    descriptors.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
