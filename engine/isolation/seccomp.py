"""Seccomp filter of instances: refuses system calls that functions do not need and that attackers of a kernel use.

pyseccomp, a binding of libseccomp, makes the program: it knows the numbers of system calls on each machine, and the
second numbering of x86-64 (x32), which a program written here would have to list. The filter is made once, when the
engine starts. Forks of a template install it (``workers/python_fence.py``). Other instances are started by a thread
that has it: a filter holds for one thread and for all that this thread starts, for ever.
"""

from __future__ import annotations

import ctypes
import errno
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

log = structlog.get_logger("functiond")

#: Calls that are refused with EPERM. Some libseccomp cannot name mount_setattr, quotactl_fd and open_tree_attr, whose
#: numbers (442, 443, 467) are the same on x86-64 and ARM64.
DENIED: tuple[str | int, ...] = (
    # mounts, and namespaces of others
    "mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", 442, 467,
    "setns", "open_by_handle_at",
    # memory and descriptors of other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
    # parts of the kernel in which many errors were found; keyrings are also shared by all processes of a user
    "bpf", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd",
    "add_key", "request_key", "keyctl",
    # the machine itself, for functions that run as root
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff", "reboot",
    "acct", "quotactl", 443, "iopl", "ioperm", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",
)  # fmt: skip
FAMILIES = (38, 40)  #: sockets of the kernel's cryptography (AF_ALG), and to hosts of virtual machines (AF_VSOCK)
UNKNOWN = -1
#: Flags of ``clone`` and ``unshare`` that create a namespace: time, mounts, cgroup, uts, ipc, user, pid and network.
NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


class SeccompFilter:
    """Filter of instances, and a thread that has it and starts programs until ``close``."""

    def __init__(self) -> None:
        """Make the filter, and try it. Raises RuntimeError without libseccomp, OSError if the kernel refuses it."""
        import pyseccomp

        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)  # 32-bit programs
        rules.set_attr(pyseccomp.Attr.CTL_SSB, 1)  # kernels before 5.16 would slow filtered processes down
        for name in DENIED:
            if isinstance(name, str) and pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) == UNKNOWN:
                log.warning("a system call is not refused, since libseccomp does not know it", name=name)
            else:
                rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
        for family in FAMILIES:
            domain = pyseccomp.Arg(0, pyseccomp.EQ, family)
            rules.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", domain)
        for flag in NAMESPACES:
            for name in ("clone", "unshare"):
                flags = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag)
                rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name, flags)
        # The flags of clone3 are in memory, which filters cannot read. After ENOSYS, libraries call clone.
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        seccomp, ptrace = (pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in ("seccomp", "ptrace"))
        with tempfile.TemporaryFile() as file:
            rules.export_bpf(file)
            file.seek(0)
            #: number of the system call that installs the program, and the program in hexadecimal digits
            self.request = (seccomp, file.read().hex())
        self._thread = ThreadPoolExecutor(1, "functiond-seccomp")
        self._thread.submit(rules.load).result()
        if self._thread.submit(_error_of, ptrace, -1, 0, 0, 0).result() != errno.EPERM:
            raise OSError("it has no effect")

    def popen(self, *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that has the filter, like subprocess.Popen."""
        start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
        return self._thread.submit(start, *args, **options).result()

    def close(self) -> None:
        """End the thread. Call when the programs that it started have exited: the kernel may kill them with it."""
        self._thread.shutdown()


def find_filter() -> SeccompFilter | None:
    """Return the filter of instances, or None, after a warning, if this machine has none. Blocks: call in a thread."""
    try:
        return SeccompFilter()
    except RuntimeError as error:
        reason = f"{error}: install it (Debian's package libseccomp2)"
    except OSError as error:
        reason = f"the kernel refuses it: {error}"
    log.warning("functions run without a seccomp filter", reason=reason)
    return None


def _error_of(number: int, *args: int) -> int:
    """Return the errno of a system call."""
    ctypes.CDLL(None, use_errno=True).syscall(number, *args)
    return ctypes.get_errno()
