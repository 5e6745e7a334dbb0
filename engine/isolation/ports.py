"""Whether ports can be mapped here, as ``engine/workers/bridge_ports.py`` does it for instances of HTTP functions."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_OLDEST = (5, 5)  #: kernel that lets a call go on after it was asked about
_SECCOMP = {"x86_64": 317, "aarch64": 277}  #: the number of the call, by machine
_SET_FILTER, _NEW_LISTENER = 1, 8


def can_map_ports() -> bool:
    """Asks without doing anything."""
    number = _SECCOMP.get(platform.machine())
    version = tuple(int(part) for part in os.uname().release.split(".", 2)[:2] if part.isdecimal())
    if number is None or version < _OLDEST:
        return False
    # The kernel looks at what is asked for before it looks at the filter, which is missing here.
    result = ctypes.CDLL(None, use_errno=True).syscall(number, _SET_FILTER, _NEW_LISTENER, None)
    return result == -1 and ctypes.get_errno() == errno.EFAULT
