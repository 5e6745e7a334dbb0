"""Check of the kernel for the system calls by which ``engine/workers/bridge_ports.py`` maps ports of HTTP functions."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_OLDEST = (5, 5)  #: first kernel that can continue a system call after a user notification
_SECCOMP = {"x86_64": 317, "aarch64": 277}  #: number of the system call, by machine
_SET_FILTER, _NEW_LISTENER = 1, 8


def can_map_ports() -> bool:
    """Return whether the kernel of this machine supports the mapping of ports. Changes nothing on the machine."""
    number = _SECCOMP.get(platform.machine())
    version = tuple(int(part) for part in os.uname().release.split(".", 2)[:2] if part.isdecimal())
    if number is None or version < _OLDEST:
        return False
    # The kernel checks the requested operation before the filter. The filter is missing here: EFAULT means supported.
    result = ctypes.CDLL(None, use_errno=True).syscall(number, _SET_FILTER, _NEW_LISTENER, None)
    return result == -1 and ctypes.get_errno() == errno.EFAULT
