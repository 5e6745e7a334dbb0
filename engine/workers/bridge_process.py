"""The user's ``bootstrap`` as a child, and what it has started. Standard library only, Python 3.9 syntax."""

import ctypes
import errno
import os
import resource
import signal
import subprocess
import time

from bridge_outcomes import ENTRY, INIT_FAILED, CannotStart

PARENT_DEATH_SIGNAL, CHILD_SUBREAPER = 1, 36  # of prctl
FRESH = 0.1  #: seconds for which a measured peak of memory is good enough


def find_bootstrap(folders):
    """The first that there is in the code and, as on Lambda, in its layers. Raises CannotStart."""
    for folder in folders:
        path = os.path.join(folder, "bootstrap")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        if os.path.isfile(path):
            raise CannotStart(ENTRY, "the file bootstrap is not executable: run 'chmod +x bootstrap', "
                                     "then zip it with a tool that keeps permissions")
    raise CannotStart(ENTRY, "there is no file bootstrap in the root folder of the code, for this runtime to start")


def prctl(option, value):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def follow(parent, number):
    """The kernel sends that signal to this process when its parent is gone."""
    prctl(PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os._exit(0)


def adopt():
    """From now on the orphans of what is started here are this process's children, and so within reach."""
    prctl(CHILD_SUBREAPER, 1)


class Bootstrap:
    """``pidfd`` becomes readable when it ends."""

    def __init__(self, path, environment, prepare):
        """``prepare`` is called in the child before it becomes bootstrap. Raises CannotStart."""
        try:
            self.process = start(path, environment, prepare)
        except OSError as error:
            raise CannotStart(ENTRY, "bootstrap cannot be started: %s; see that the interpreter on its first line is "
                                     "there" % error.strerror) from None
        except subprocess.SubprocessError as error:
            raise CannotStart(INIT_FAILED, "bootstrap cannot be prepared: %s" % error) from None
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.measured, self.peak = -FRESH, 0

    def memory(self):
        """The highest peak in KiB of what runs now, all processes together."""
        now = time.monotonic()
        if now - self.measured > FRESH:
            self.bury()
            self.peak = max(self.peak, sum(high_water(pid) for pid in descendants()))
            self.measured = now
        return self.peak

    def signal(self, number):
        """To all that it has started, too: a shell passes nothing on to its children."""
        for pid in {self.pid, *descendants()}:
            try:
                os.kill(pid, number)
            except OSError:
                pass

    def bury(self):
        """Reap the adopted that have ended; bootstrap's own end is seen elsewhere."""
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != self.pid:
            os.waitpid(ended.si_pid, 0)

    def end_alike(self):
        """End this process as bootstrap has ended, for that is what the engine will tell the caller."""
        status = self.process.wait()
        if status < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if -status != signal.SIGKILL:
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
            status = 128 - status  # the first process of a pid namespace cannot be killed like that
        os._exit(status)


def start(path, environment, prepare):
    bridge = os.getpid()
    command = [path]

    def before():
        follow(bridge, signal.SIGKILL)
        prepare()

    while True:
        try:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=before)
        except OSError as error:
            # Without a #! line a shell is meant, as shells themselves do it.
            if error.errno != errno.ENOEXEC or len(command) > 1:
                raise
            command = ["/bin/sh", path]


def descendants():
    """Of this process, as far as the kernel tells."""
    found = list(children(os.getpid()))
    for one in found:
        found.extend(children(one))
    return found


def children(pid):
    tasks = "/proc/%d/task" % pid
    try:
        for task in os.listdir(tasks):
            with open("%s/%s/children" % (tasks, task)) as file:
                yield from map(int, file.read().split())
    except OSError:
        return  # it is gone, or this kernel does not tell


def high_water(pid):
    try:
        with open("/proc/%d/status" % pid) as file:
            text = file.read()
        at = text.index("VmHWM:")
        return int(text[at + 6:text.index("kB", at)])
    except (OSError, ValueError):
        return 0
