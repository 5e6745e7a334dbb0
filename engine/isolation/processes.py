"""Finding processes by a variable in their environment, and ending them for certain.

A variable is inherited by everything that an instance starts, whatever session or group it moves to, unless it
cleans its environment on purpose: the best that can be done where there is no cgroup.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

PAGE = os.sysconf("SC_PAGE_SIZE")
MAX_WAIT = 10.0  #: seconds that a killed process gets to disappear; longer means that it hangs in the kernel


def marked(name: str, value: str) -> Iterator[int]:
    """The processes (but for this one) that carry the variable."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and carries(int(entry), name, value):
            yield int(entry)


def carries(pid: int, name: str, value: str) -> bool:
    """False also for a process that is gone, a zombie, or not ours to look at."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{name}={value}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def resident(roots: Sequence[int]) -> dict[int, int]:
    """Bytes of resident memory of each of these processes with its descendants, and with all of its session."""
    parents, sessions, sizes = {}, {}, {}
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            with open(f"/proc/{int(entry)}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            pid = int(entry)
            parents[pid], sessions[pid], sizes[pid] = int(fields[1]), int(fields[3]), int(fields[21])
    found = dict.fromkeys(roots, 0)
    for pid, size in sizes.items():
        owner = pid
        while owner not in found and owner in parents:
            owner = parents[owner]
        owner = owner if owner in found else sessions[pid]
        if owner in found:
            found[owner] += size * PAGE
    return found


def kill_marked(name: str, value: str) -> list[int]:
    """Kill all that carry the variable and wait until they are gone; gives those that would not go."""
    stuck: list[int] = []
    while pids := [pid for pid in marked(name, value) if pid not in stuck]:
        stuck += kill_and_wait(pids, lambda pid: carries(pid, name, value))
    return stuck


def kill_and_wait(pids: list[int], still_meant: Callable[[int], bool]) -> list[int]:
    """Kill these processes and wait until they are gone; gives those that would not go.

    ``still_meant`` is asked once the process is held by a descriptor: a number may meanwhile be another's.
    """
    for pid in pids:
        with _held(pid) as fd:
            if fd is not None and still_meant(pid):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
    return [pid for pid in pids if not _gone(pid, still_meant)]


def _gone(pid: int, still_meant: Callable[[int], bool]) -> bool:
    """Whether it ended within our patience."""
    with _held(pid) as fd:
        if fd is None or not still_meant(pid):
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(MAX_WAIT * 1000))


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor of the process, None if it is gone. One at a time: a fork bomb has more than we may open."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
