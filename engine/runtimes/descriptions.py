"""Descriptions of interpreters, by which clients choose packages that fit: version, machine and libc."""

from __future__ import annotations

import json
import os
import subprocess
from functools import lru_cache
from typing import Any

from msgspec import Struct

from engine.runtimes.catalog import Family

PROBE_TIMEOUT = 30.0  #: seconds until an interpreter must have answered
#: Programs that print a JSON list with the fields of InterpreterInfo from ``version`` on.
_PROGRAMS = {
    Family.PYTHON: (
        *("-I", "-S", "-c"),
        "import json, platform, sys, sysconfig; libc = platform.libc_ver(); "
        # Before Python 3.14, libc_ver() does not know musl, which has one binary interface since 1.2.
        "musl = 'musl' in str(sysconfig.get_config_var('HOST_GNU_TYPE')) and ('musl', '1.2'); "
        "print(json.dumps(['%d.%d.%d' % sys.version_info[:3], sys.implementation.name, platform.machine(), "
        "*(musl or libc)]))",
    ),
    Family.NODE: (
        "-p",
        "process.report.excludeNetwork = true; const glibc = process.report.getReport().header.glibcVersionRuntime; "
        "const machine = {x64: 'x86_64', arm64: 'aarch64'}[process.arch] ?? process.arch; "
        "const other = process.platform === 'linux' ? 'musl' : ''; "
        "JSON.stringify([process.versions.node, 'node', machine, glibc ? 'glibc' : other, glibc ?? ''])",
    ),
}


class InterpreterInfo(Struct, frozen=True, kw_only=True):
    """Interpreter that runs functions of ``runtime``."""

    runtime: str
    language: Family  #: ``python`` or ``node``
    version: str  #: such as 3.11.7
    implementation: str  #: such as cpython
    machine: str  #: such as x86_64 or aarch64
    libc: str  #: ``glibc`` or ``musl``; empty: unknown
    libc_version: str  #: empty: unknown

    @property
    def minor(self) -> tuple[int, int]:
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)


def describe(runtime: str, language: Family, path: str) -> InterpreterInfo | None:
    """Return the description of an executable, or None if it does not run. Blocks at the first call for a file."""
    try:
        details = _details(path, language, os.stat(path).st_mtime_ns)
        version, implementation, machine, libc, libc_version = details
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return InterpreterInfo(
        runtime=runtime,
        language=language,
        version=version,
        implementation=implementation,
        machine=machine,
        libc=libc,
        libc_version=libc_version,
    )


@lru_cache(maxsize=64)
def _details(path: str, language: Family, changed_at: int) -> Any:
    """Return what an executable says about itself, until its file changes."""
    command = [path, *_PROGRAMS[language]]
    nothing = subprocess.DEVNULL
    return json.loads(subprocess.check_output(command, stdin=nothing, stderr=nothing, timeout=PROBE_TIMEOUT))
