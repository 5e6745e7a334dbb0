"""Properties of the machine, and resource usage of processes as the kernel reports it."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

_SYNCS = 100


class Machine(Struct, frozen=True, kw_only=True):
    processor: str
    cores: int  #: cores available to this process
    memory_mb: int
    kernel: str
    python: str
    sqlite: str
    filesystem: str  #: file system of the data directories
    fsync_ms: float  #: median milliseconds to append and sync 4 KiB in the directory


class Cpu(Struct, frozen=True, kw_only=True):
    """CPU time in seconds."""

    loop: float  #: main thread
    threads: float  #: other threads, mainly the journal's writer
    children: float  #: running child processes

    def since(self, before: Cpu) -> Cpu:
        return Cpu(
            loop=self.loop - before.loop,
            threads=self.threads - before.threads,
            children=self.children - before.children,
        )


def inspect_machine(directory: Path) -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        kernel=platform.release(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        filesystem=_filesystem(directory),
        fsync_ms=round(measure_fsync(directory), 3),
    )


def measure_fsync(directory: Path) -> float:
    """Return the median time to append 4 KiB to a file and sync it, in milliseconds."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            os.write(file.fileno(), bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(directory: Path) -> str:
    nearest, best = "unknown", -1
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, kind, *_ = line.split()
            if directory.resolve().is_relative_to(mount) and len(mount) > best:
                nearest, best = kind, len(mount)
    return nearest


# --- one process --------------------------------------------------------------------------------------------


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Return the resident memory of a process in MB of 2**20 bytes, or its peak with ``field="VmHWM"``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def wakeups(pid: int) -> int:
    """Return the number of times that threads of the process have slept and been woken since they started."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def cpu_of(pid: int) -> Cpu:
    loop = threads = children = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            seconds = _on_processor(task)
            loop, threads = (loop + seconds, threads) if task.name == str(pid) else (loop, threads + seconds)
            children += sum(_tree_seconds(child) for child in (task / "children").read_text().split())
    return Cpu(loop=loop, threads=threads, children=children)


def _tree_seconds(pid: str) -> float:
    """Return CPU seconds of a process and its running descendants.

    Descendants are included because instances may be children of a template.
    """
    seconds = 0.0
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            seconds += _on_processor(task)
            seconds += sum(_tree_seconds(child) for child in (task / "children").read_text().split())
    return seconds


def _on_processor(task: Path) -> float:
    return int((task / "schedstat").read_text().split()[0]) / 1e9
