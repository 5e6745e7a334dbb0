"""Fork server (template): has the Python runtime loaded, and forks an instance in about a millisecond on request.

Run as ``python -I python_template.py <descriptor> [full | bridge]``. With ``--probe <fence>`` instead, the exit status
is 0 if this machine allows such a fence (set of namespaces). Standard library only, Python 3.9 syntax, no import of
the engine. The server has one thread and no signal handlers: every fork starts from the same state. The descriptor is a
SOCK_SEQPACKET socket; each packet is one JSON object.

    from the engine   {"id", "argv", "bridge", "links", "paths", "environment", "fence", "filter"}
                          + socket, stdout, stderr                   start
                      {"reap": [id, …]}                              these have exited: release their process ids
    to the engine     {"ready": true}                                requests are served from now on
                      {"id", "pid"} + pidfd                          started
                      {"id", "error", "reason"}                      not started: an errno
                      {"id", "status", "error", "reason", "file"}    exited: status, or minus the signal; with the
                                                                     error, if it failed before it was an instance

Without ``argv`` the instance is ``python_worker`` in the forked process itself, else that program with the socket's
number as its last argument. With ``bridge``, a family, the instance is ``bridge_worker`` in the forked process, and
``links``, if not null, are symbolic links in an /opt of its own. ``paths`` are its working folder and those of its
layers. A ``fence`` (python_fence.py) puts it in namespaces; then it installs the seccomp ``filter``, if one is given.
With a fence the reported process is the init of the instance. The first byte on the instance's own socket carries the
descriptors by which it enters its cgroups; it continues only then.

If the engine exits, the socket closes, and the template kills its instances. If only the template exits, its instances
continue (except bridges, and all inside a sandbox, which is killed with its template).
"""

import ctypes  # noqa: F401  (loaded in a worker that is a separate program, too)
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import python_worker

    COMMON = set(sys.modules)  # modules that are loaded in every worker

    import errno
    import gc
    import json
    import select
    import signal
    import socket
    import time

    import python_fence

    if "bridge" in sys.argv[2:]:
        import bridge_worker
finally:
    del sys.path[0]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any, NoReturn

    from worker_types import StartRequest

LARGEST = 1 << 20  #: bytes of a packet
REPORT_LIMIT = 4096  #: bytes of a child's report on its end
INSTANCE = "FUNCTIOND_INSTANCE"
#: Modules that most functions use, loaded one by one in idle time, in this order. Large modules that few functions
#: use (asyncio, ssl, http) are not loaded: each fork would copy their page tables, 1.3 ms.
PRELOADED = (
    "traceback",
    "importlib.util",
    "random",
    "datetime",
    "logging",
    "base64",
    "uuid",
    "tempfile",
    "urllib.parse",
)


class Child:
    def __init__(self, pid: int, pidfd: int, report_reader: int) -> None:
        self.pid, self.pidfd, self.report_reader, self.closed = pid, pidfd, report_reader, False

    def end(self) -> "dict[str, Any]":
        """Return the exit status and the error of a forked process that has exited but is not reaped.

        If the process was the init of a pid namespace, it has reported the status of its instance, which is returned
        instead of its own. If the process failed before it was an instance, it has reported the error.
        """
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert result is not None  # as it has exited
        own = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        problem, _, status = os.read(self.report_reader, REPORT_LIMIT).decode().rpartition("\n")
        return {"status": int(status or own), **json.loads(problem or "{}")}

    def close(self) -> None:
        self.closed = True
        close(self.pidfd, self.report_reader)


class Template:
    def __init__(self, control: socket.socket, preloaded: "Sequence[str]") -> None:
        self.control = control
        self.children: dict[int, Child] = {}  # by id
        self.waiting = list(preloaded)
        self.own: dict[str, set[str]] = {}  # modules that other workers lack, by the name before the first dot
        self.note_modules()
        self.worker_modules = python_worker.own_modules()
        self.placeholder = python_fence.variable_in_memory(INSTANCE)
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.by_fd: dict[int, int] = {}  # ids of children
        self.highest = control.fileno()  # highest descriptor ever used

    def run(self) -> None:
        self.send({"ready": True})
        gc.freeze()
        while True:
            events = self.poll.poll(0 if self.waiting else None)
            if not events:
                self.preload()
            for fd, _ in events:
                if fd in self.by_fd:
                    self.on_exit(fd)
                elif fd == self.control.fileno() and not self.receive():
                    return

    def preload(self) -> None:
        name = self.waiting.pop(0)
        try:
            __import__(name)
        except (ImportError, OSError):  # for example too few free descriptors
            return
        finally:
            self.note_modules()
            gc.freeze()

    def note_modules(self) -> None:
        for module in set(sys.modules) - COMMON:
            self.own.setdefault(module.partition(".")[0], set()).add(module)

    def receive(self) -> bool:
        """Handle one packet from the engine. Return False if the engine has closed the socket."""
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

    def start(self, request: "StartRequest", fds: "list[int]") -> None:
        if len(fds) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        report_reader, report = os.pipe()
        self.highest = max(self.highest, report_reader, report, *fds)
        try:
            pid = python_fence.fork(request["fence"])
        except OSError:
            close(report_reader, report)
            raise
        if pid == 0:
            close(report_reader)
            self.run_instance(request, fds, report)
        close(report)
        try:
            child = Child(pid, os.pidfd_open(pid), report_reader)
        except OSError:  # no free descriptor
            close(report_reader)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.highest = max(self.highest, child.pidfd)
        self.children[request["id"]] = child
        self.by_fd[child.pidfd] = request["id"]
        self.poll.register(child.pidfd, select.POLLIN)
        self.send({"id": request["id"], "pid": pid}, [child.pidfd])

    def reap(self, number: int) -> None:
        child = self.children[number]
        if not child.closed:  # the engine noticed the exit first
            self.on_exit(child.pidfd)
        del self.children[number]
        os.waitpid(child.pid, 0)

    def on_exit(self, fd: int) -> None:
        number = self.by_fd.pop(fd)
        child = self.children[number]
        self.poll.unregister(fd)
        end = child.end()
        kill_group(child.pid)
        child.close()
        self.send({"id": number, **end})

    def send(self, message: "dict[str, Any]", fds: "Sequence[int]" = ()) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], fds)
        except OSError:
            return  # the engine has closed the socket; the next read reports it, too

    def close(self) -> None:
        for child in self.children.values():
            kill_group(child.pid)

    # --- in the new process ---

    def run_instance(self, request: "StartRequest", fds: "list[int]", report: int) -> "NoReturn":
        """Turn the forked process into the instance, and serve its requests. Never returns."""
        try:
            self.control.detach()
            close_others({*fds, report}, self.highest)
            if request["links"] is not None:
                python_fence.create_opt(request["paths"][0], request["links"])
            python_fence.enter(request["fence"], fds, report)
            if request["filter"]:
                python_fence.install_filter(*request["filter"])
            os.setsid()
            self.apply_request(request, fds)
            if request["argv"]:
                execute(request["argv"], fds[0])
            if request["bridge"]:
                os.close(report)
                bridge_worker.run(request["bridge"], fds[0])
            self.unload_own_modules(request["paths"])
        except BaseException as error:
            os.write(report, problem(error))
            os._exit(1)
        os.close(report)  # must not be open in user code
        sys.modules["__main__"] = python_worker
        vars(python_worker)["__spec__"] = None  # as in any program; else multiprocessing would search for this module
        python_worker.run(fds[0], self.worker_modules)

    def apply_request(self, request: "StartRequest", fds: "list[int]") -> None:
        """Set descriptors, environment and working folder of the forked process to those of a new program."""
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

    def unload_own_modules(self, folders: "list[str]") -> None:
        """Unload modules that only the template has loaded, if a file in the user's folders has the same name.

        User code then imports the user's file, as in a worker that was not forked.
        """
        # No iteration over sys.modules: in a fork, even reading an object copies its memory page.
        for folder in folders:
            for name in os.listdir(folder):
                for module in self.own.pop(name.partition(".")[0], ()):
                    del sys.modules[module]


def execute(argv: "list[str]", fd: int) -> "NoReturn":
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and inherited by programs
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(fd, True)
    os.execve(argv[0], [*argv, str(fd)], os.environ)


def problem(error: BaseException) -> bytes:
    """Return an error as JSON, in the form in which a forked process reports it and ``Child.end`` reads it."""
    fields = {"error": getattr(error, "errno", None) or 0, "file": getattr(error, "filename", None)}
    fields["reason"] = (getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")[:500]
    return json.dumps(fields).encode() + b"\n"


def kill_group(pid: int) -> None:
    """Kill the process and its process group.

    Call only before the process is reaped, while its pid cannot be reused.
    """
    for kill in (os.killpg, os.kill):  # its group may not exist yet
        try:
            kill(pid, signal.SIGKILL)
        except OSError:
            continue


def close_others(kept: "Collection[int]", highest: int) -> None:
    """Close all descriptors from 3 to ``highest`` except those in ``kept``. Call in the forked process.

    Closing the descriptors found in the template's objects instead would copy the memory pages of these objects.
    """
    low = 3
    for fd in [*sorted(kept), highest + 1]:
        os.closerange(low, fd)
        low = fd + 1


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def main() -> None:
    if sys.argv[1] == "--probe":
        sys.exit(0 if python_fence.probe(json.loads(sys.argv[2])) else 1)
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    template = Template(socket.socket(fileno=fd), PRELOADED if "full" in sys.argv[2:] else ())
    try:
        template.run()
    finally:
        template.close()


if __name__ == "__main__":
    main()
