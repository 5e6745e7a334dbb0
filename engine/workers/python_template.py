"""A fork server: it has the Python runtime loaded, and forks an instance in about a millisecond when it is told to.

Run as ``python -I python_template.py <descriptor> [full]``; as ``… --probe <fence>`` it exits with 0 if such can be had.
Standard library only, Python 3.9 syntax, nothing of the engine. One thread, no signal handlers: it never forks anything
but what it is. The descriptor is a SOCK_SEQPACKET socket; each packet is one JSON object.

    from the engine   {"id", "argv", "paths", "environment", "fence"} + socket, stdout, stderr   start an instance
                      {"reap": [id, …]}                              they are known to be dead: free their process ids
    to the engine     {"ready": true}                                what was asked before is served from now on
                      {"id", "pid"} + pidfd                          it lives
                      {"id", "error", "reason"}                      it could not be started: an errno
                      {"id", "status", "error", "reason", "file"}    it died: its exit status, or minus the signal; and
                                                                     if it never came to be an instance, what hindered

Without ``argv`` the instance is ``python_worker`` in the forked process itself, else that program with the socket's
number as its last argument; ``paths`` are its working folder and those of its layers. A ``fence`` (python_fence.py) gives
it namespaces of its own; behind a whole one the process that is reported is its init. The first byte on its own socket
brings the descriptors by which it enters its control groups: only then does it go on.

When the engine is gone, so is everything here: the socket's end is the sign. When only the template dies, its
instances go on (but for those inside a sandbox that dies with it).
"""

import ctypes  # noqa: F401  (a worker that is a program of its own has loaded it, too)
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import python_worker  # noqa: E402

COMMON = set(sys.modules)  # what user code finds loaded in any worker

import errno  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import time  # noqa: E402

import python_fence  # noqa: E402

del sys.path[0]

LARGEST = 1 << 20  #: bytes of a packet
LONGEST_WORDS = 4096  #: bytes that a child says about its end
INSTANCE = "FUNCTIOND_INSTANCE"
#: What most functions use. Loaded one by one while there is nothing to do, in this order. What is large and used by few
#: (asyncio, ssl, http) is not: each fork copies the page tables of all of it, 1.3 ms.
PRELOADED = ("traceback", "importlib.util", "random", "datetime", "logging", "base64", "uuid", "tempfile", "urllib.parse")


class Child:
    def __init__(self, pid, pidfd, said):
        self.pid, self.pidfd, self.said, self.closed = pid, pidfd, said, False

    def end(self):
        """It is a zombie now. Its init knows better than the kernel how the instance ended, itself what hindered it."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        own = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        problem, _, status = os.read(self.said, LONGEST_WORDS).decode().rpartition("\n")
        return {"status": int(status or own), **json.loads(problem or "{}")}

    def close(self):
        self.closed = True
        close(self.pidfd, self.said)


class Template:
    def __init__(self, control, preloaded):
        self.control, self.children = control, {}  # by id
        self.waiting = list(preloaded)
        self.own = {}  # modules that other workers have not, by the name before the first dot
        self.note_modules()
        python_worker.OURS = python_worker.own_modules()
        self.placeholder = python_fence.variable_in_memory(INSTANCE)
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.by_fd = {}
        self.highest = control.fileno()  # descriptor there ever was

    def run(self):
        self.send({"ready": True})
        gc.freeze()
        while True:
            events = self.poll.poll(0 if self.waiting else None)
            if not events:
                self.preload()
            for fd, _ in events:
                if fd in self.by_fd:
                    self.died(fd)
                elif fd == self.control.fileno() and not self.receive():
                    return

    def preload(self):
        name = self.waiting.pop(0)
        try:
            __import__(name)
        except (ImportError, OSError):  # there may be too few descriptors just now
            pass
        self.note_modules()
        gc.freeze()

    def note_modules(self):
        for one in set(sys.modules) - COMMON:
            self.own.setdefault(one.partition(".")[0], set()).add(one)

    def receive(self):
        """False when the engine has gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, LARGEST, 3)
        except OSError:
            return False
        if not data:
            return False
        request = json.loads(data)
        if "reap" in request:
            for number in request["reap"]:
                self.reap(number)
            return True
        try:
            self.start(request, fds)
        except OSError as error:
            self.send({"id": request["id"], "error": error.errno, "reason": error.strerror})
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def start(self, request, fds):
        if len(fds) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        said, saying = os.pipe()
        self.highest = max(self.highest, said, saying, *fds)
        try:
            pid = python_fence.fork(request["fence"])
        except OSError:
            close(said, saying)
            raise
        if pid == 0:
            close(said)
            self.become(request, fds, saying)
        close(saying)
        try:
            child = Child(pid, os.pidfd_open(pid), said)
        except OSError:  # there are too many descriptors
            close(said)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.highest = max(self.highest, child.pidfd)
        self.children[request["id"]] = child
        self.by_fd[child.pidfd] = request["id"]
        self.poll.register(child.pidfd, select.POLLIN)
        self.send({"id": request["id"], "pid": pid}, [child.pidfd])

    def reap(self, number):
        child = self.children[number]
        if not child.closed:  # the engine was faster to see that it is dead
            self.died(child.pidfd)
        del self.children[number]
        os.waitpid(child.pid, 0)

    def died(self, fd):
        number = self.by_fd.pop(fd)
        child = self.children[number]
        self.poll.unregister(fd)
        end = child.end()
        sweep(child.pid)
        child.close()
        self.send({"id": number, **end})

    def send(self, message, fds=()):
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], fds)
        except OSError:
            pass  # the engine has gone: the next read says so, too

    def close(self):
        for child in self.children.values():
            sweep(child.pid)

    # --- in the new process ---

    def become(self, request, fds, saying):
        """Never returns."""
        try:
            self.control.detach()
            close_others({*fds, saying}, self.highest)
            python_fence.enter(request["fence"], fds, saying)
            os.setsid()
            self.dress(request, fds)
            if request["argv"]:
                execute(request["argv"], fds[0])
            self.forget(request["paths"])
        except BaseException as error:
            os.write(saying, problem(error))
            os._exit(1)
        os.close(saying)  # user code must not have it
        sys.modules["__main__"] = python_worker
        python_worker.__spec__ = None  # as of any program; multiprocessing would look for a module of that name
        python_worker.run(fds[0])

    def dress(self, request, fds):
        """What a new program would find: descriptors, environment, folder."""
        for number, fd in ((1, fds[1]), (2, fds[2])):
            os.dup2(fd, number)
            os.close(fd)
        environment = request["environment"]
        if self.placeholder and INSTANCE in environment:
            python_fence.write_in_memory(self.placeholder, environment[INSTANCE])
        os.environ.clear()
        os.environ.update(environment)
        if "TZ" in environment:
            time.tzset()
        os.chdir(request["paths"][0])

    def forget(self, folders):
        """A file of the user's named like a module that only the template loaded must win, as it does elsewhere."""
        # Not a walk along sys.modules: whatever is only looked at here costs a fork the copy of its page.
        for folder in folders:
            for name in os.listdir(folder):
                for one in self.own.pop(name.partition(".")[0], ()):
                    del sys.modules[one]


def execute(argv, fd):
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(fd, True)
    os.execve(argv[0], [*argv, str(fd)], os.environ)


def problem(error):
    """A line for ``Child.end``."""
    told = {"error": getattr(error, "errno", None) or 0, "file": getattr(error, "filename", None)}
    told["reason"] = (getattr(error, "strerror", None) or "%s: %s" % (type(error).__name__, error))[:500]
    return json.dumps(told).encode() + b"\n"


def sweep(pid):
    """Its whole group, as long as the process id is surely its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    try:
        os.kill(pid, signal.SIGKILL)  # it may not have had the time to make a group
    except OSError:
        pass


def close_others(kept, highest):
    """By ranges: to go along the children that the template has would cost a fork the copies of their pages."""
    low = 3
    for fd in [*sorted(kept), highest + 1]:
        os.closerange(low, fd)
        low = fd + 1


def close(*fds):
    for fd in fds:
        if fd is not None:
            os.close(fd)


def main():
    if sys.argv[1] == "--probe":
        sys.exit(0 if python_fence.probe(json.loads(sys.argv[2])) else 1)
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    template = Template(socket.socket(fileno=fd), PRELOADED if sys.argv[2:] else ())
    try:
        template.run()
    finally:
        template.close()


if __name__ == "__main__":
    main()
