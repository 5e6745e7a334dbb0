"""Launcher of instances as processes of this machine: processes, limits and temporary folders.

Blocking work runs in threads: creating a cgroup can wait for the kernel, and removing files can take long if the
user created many. Starting and cleaning have separate threads, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog
from anyio import to_thread
from msgspec import Struct

from engine.auth.agencies import Agency
from engine.errors import InvalidField, SettingsError
from engine.executors.call import Call, End, Key
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan, load_timeout
from engine.executors.local.channel import LocalChannel
from engine.executors.local.child import ChildProcess
from engine.executors.local.choice import NO_ISOLATION, IsolationOptions, open_spawner
from engine.executors.local.memory_watch import MemoryWatch
from engine.executors.local.spawn import FunctionAccess, InstanceSpec, ProcessSpec, Spawned, environment, setup
from engine.executors.local.spawners import Spawner
from engine.executors.logs import LogRecorder
from engine.executors.process import Exit
from engine.isolation.bubblewrap import unseen
from engine.isolation.detect import can_map_ports, detect_isolation
from engine.isolation.folders import folders_of
from engine.isolation.limits import Enclosure, Isolation, Limits
from engine.isolation.orphans import kill_orphans, remove_tree
from engine.model import CodePackage, Function
from engine.model.limits import cpu_of
from engine.runtimes.catalog import Family, family_of
from engine.runtimes.interpreters import InterpreterInfo, Interpreters, bridge_of
from engine.runtimes.protocol import Answer, setup_frame

_START_THREADS, _CLEAN_THREADS = 2, 2  #: numbers of threads

Result = TypeVar("Result")

log = structlog.get_logger("functiond")


class LocalOptions(Struct, frozen=True, kw_only=True):
    """Settings common to all instances on this machine.

    ``marker`` identifies the data directory and all processes started for it; two running engines must not use the same
    marker.
    """

    tmp: Path  #: folder of the instances' temporary folders
    marker: str
    region: str = "local-1"
    processes: int = 1024  #: most processes of one instance
    term_grace: float = 2.0  #: seconds that a handler may clean up when its request is cancelled or runs too long
    access: FunctionAccess | None = None  #: to the API of the engine; None: functions get none
    agency_of: Callable[[Function, str], Agency | None] = lambda function, instance: None  #: by the instance's id
    sandbox: IsolationOptions = NO_ISOLATION


async def open_launcher(
    options: LocalOptions,
    *,
    code_path: Callable[[CodePackage], Path],
    check_code: Callable[[CodePackage], Awaitable[None]] | None,
    interpreters: Interpreters | None,
    recorder: LogRecorder,
    isolation: Isolation | None = None,
    make_instance: Callable[..., Instance] = Instance,
) -> LocalLauncher:
    """Kill all processes that an earlier engine left running, and return a launcher, which the caller closes.

    ``code_path`` returns the folder of a package, and ``check_code`` raises OSError if its files are damaged. Raises
    SettingsError if this machine lacks the isolation that ``options.sandbox`` demands.
    """
    await to_thread.run_sync(kill_orphans, options.marker, options.tmp)
    interpreters = interpreters or Interpreters()
    spawner = await open_spawner(options.sandbox, options.marker, options.tmp)
    if spawner.name == "bubblewrap" and (problem := unseen(interpreters.chosen)):
        await spawner.close()
        raise SettingsError(problem)
    if isolation is None:
        isolation = await to_thread.run_sync(detect_isolation, options.marker)
    launcher = LocalLauncher(
        options,
        code_path=code_path,
        check_code=check_code,
        spawner=spawner,
        isolation=isolation,
        interpreters=interpreters,
        recorder=recorder,
        make_instance=make_instance,
    )
    if options.sandbox is not NO_ISOLATION:
        log.info("isolation chosen", **launcher.walls)
    return launcher


class LocalLauncher:
    """Launcher of instances on this machine (protocol ``Launcher``)."""

    def __init__(
        self,
        options: LocalOptions,
        *,
        code_path: Callable[[CodePackage], Path],
        check_code: Callable[[CodePackage], Awaitable[None]] | None,
        spawner: Spawner,
        isolation: Isolation,
        interpreters: Interpreters,
        recorder: LogRecorder,
        make_instance: Callable[..., Instance] = Instance,
    ) -> None:
        self._options, self._spawner, self._isolation, self._recorder = options, spawner, isolation, recorder
        self._code_path, self._check_code, self._interpreters = code_path, check_code, interpreters
        self._make_instance = make_instance
        self.walls = {
            "isolation": f"{spawner.name}, {isolation.name}, {'seccomp' if spawner.filter else 'no seccomp'}",
            "network": spawner.network,
            "users": "one for each project" if len(spawner.uids) > 1 else "one for all projects",
            "http_network": "own" if spawner.network == "none" else "mapped" if can_map_ports() else "unavailable",
        }
        #: folders of the host that functions have here
        self.folders = {
            name: folder
            for name, folder in options.sandbox.folders.items()
            if folder.source and (spawner.name == "bubblewrap" or folder.source == os.path.realpath(folder.path))
        }
        self._starters = ThreadPoolExecutor(_START_THREADS, "functiond-start")
        self._cleaners = ThreadPoolExecutor(_CLEAN_THREADS, "functiond-clean")
        self._memory = MemoryWatch(isolation, self._cleaners)
        self._processes: dict[Instance, LocalProcess] = {}  #: from ``launch`` to ``clear``
        self._functions: dict[str, Function] = {}  #: of the same instances, by the instances' ids
        self._links: dict[str, str] = {}  #: of functions with a ``bootstrap``, once one was prepared

    @property
    def function_uids(self) -> range:
        return self._spawner.uids

    def function_of(self, instance_id: str) -> Function | None:
        return self._functions.get(instance_id)

    async def check_runtime(self, runtime: str) -> None:
        await self._interpreters.find(runtime)
        if self.walls["http_network"] == "unavailable" and family_of(runtime) is Family.HTTP:
            advice = 'HTTP functions need Linux 5.5 or newer on x86-64 or ARM64, or executor.network = "none"'
            raise InvalidField("runtime", runtime, advice)

    async def interpreters(self, runtime: str) -> list[InterpreterInfo]:
        if not runtime:
            return await self._interpreters.installed()
        interpreter = await self._interpreters.describe(runtime)
        return [interpreter] if interpreter is not None else []

    async def prepare(self, key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        """Check that the instance can run here, and find the interpreter.

        The first call for a runtime searches for its interpreter, and the first call for a package checks its files.
        Both take time. Raises OSError also if the package is damaged.
        """
        packages = (function.code, *(dependency.code for dependency in function.dependencies))
        if self._check_code is not None:
            for package in packages:
                await self._check_code(package)
        await self.check_runtime(function.runtime)
        folders_of(function, self.folders)  # raises
        command = await self._interpreters.worker_command(function.runtime, key[-1])
        if bridge_of(command):
            self._links = await self._interpreters.platform_links()
            for package in packages:
                _make_executable(self._code_path(package) / "bootstrap")
        await self._spawner.prepare(function.project)
        return LaunchPlan(key, function, command, uuid.uuid4().hex)

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        spec, sandbox = self._new_spec(plan), (*plan.key[:3], plan.gpus)
        seen_inside = self._spawner.seen_inside(spec)
        variables = environment(plan.function, seen_inside)
        process_spec = ProcessSpec(list(plan.command), variables, seen_inside.code, seen_inside.layers)
        spawned = self._spawner.start(sandbox, spec, process_spec)
        try:
            instance = self._connect(plan, owner, spec, spawned)
        except BaseException:
            spawned.destroy()
            self._spawner.ended(sandbox)
            self._cleaners.submit(remove_tree, spec.tmp)
            raise
        return instance

    def _connect(self, plan: LaunchPlan, owner: InstanceOwner, spec: InstanceSpec, spawned: Spawned) -> Instance:
        process = LocalProcess(spec, spawned.child)
        instance = self._make_instance(
            process,
            key=plan.key,
            function=plan.function,
            owner=owner,
            recorder=self._recorder,
            on_work=self._memory.note_work,
            grace=self._options.term_grace,
        )
        process.channel = LocalChannel(spawned, instance)
        instance.connect(process.channel)
        spawned.child.watch(instance.exited)
        self._processes[instance], self._functions[process.id] = process, plan.function
        return instance

    async def load(self, instance: Instance, start: Call) -> Answer | None:
        process = self._processes[instance]
        answer = await self._load(instance, process, start)
        if answer is None and instance.end is End.EXITED:
            await instance.closed.wait()  # sets the exit status
            if process.child.failure is not None:
                raise process.child.failure
        return answer

    async def _load(self, instance: Instance, process: LocalProcess, start: Call) -> Answer | None:
        function, channel = start.function, process.channel
        process.enclosing = enclosing = self._enclose(process, function)
        await channel.open()
        if not process.alive:  # exited meanwhile
            channel.abort()
        await process.child.spawned()
        # Shielded: the thread continues after a cancellation, and ``clear`` removes the enclosure.
        enclosure = await asyncio.shield(asyncio.wrap_future(enclosing))
        if isinstance(enclosure, OSError):
            raise enclosure
        process.enclosure = enclosure
        if instance.end is not None:  # its resources may be removed already
            return None
        problem = await self._admit(process, enclosure)
        if instance.end is not None:
            return None
        if problem is not None and not isinstance(problem, ProcessLookupError):
            raise problem
        if problem is not None or (process.child.waits and not channel.send_descriptors(enclosure.cgroup_fds())):
            await instance.closed.wait()  # the process exited; its status is the reason
            return None
        self._memory.add(instance, enclosure)
        frame = setup_frame(setup(function, self._spawner.seen_inside(process.spec)))
        return await instance.request(start, frame, load_timeout(function))

    def _enclose(self, process: LocalProcess, function: Function) -> Future[Enclosure | OSError]:
        limits = Limits(
            memory=process.spec.memory,
            processes=self._options.processes,
            cpu=cpu_of(process.spec.memory),
            enters=process.child.waits,
            tmp=self._spawner.tmp,
            # CUDA reserves address space for all memory of the machine and its GPUs.
            address_space=family_of(function.runtime) is Family.PYTHON and not process.spec.gpus.visible,
        )
        return self._starters.submit(_capture_error, self._isolation.enclose, process.id, limits)

    async def _admit(self, process: LocalProcess, enclosure: Enclosure) -> OSError | None:
        if process.child.waits:
            return _capture_error(enclosure.admit, process.pid)
        admitting = self._starters.submit(_capture_error, enclosure.admit, process.pid)
        return await asyncio.shield(asyncio.wrap_future(admitting))

    def clear(self, instance: Instance) -> None:
        """Remove the cgroup and the temporary folder of a closed instance, in a thread, without waiting."""
        self._memory.discard(instance)
        self._spawner.ended((*instance.key[:3], self._processes[instance].spec.gpus))
        del self._functions[instance.id]
        self._cleaners.submit(self._processes.pop(instance).clear)

    async def close(self) -> None:
        """Wait until the cgroups and temporary folders of all instances are removed, then stop the threads."""
        self._memory.close()
        await self._spawner.close()
        if self._spawner.filter is not None:
            self._spawner.filter.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._starters.shutdown()
        self._cleaners.shutdown()
        self._isolation.close()

    def _new_spec(self, plan: LaunchPlan) -> InstanceSpec:
        function, access = plan.function, self._options.access
        return InstanceSpec(
            instance_id=plan.instance,
            marker=self._options.marker,
            region=self._options.region,
            code=self._code_path(function.code).absolute(),  # absolute: a child has another working folder
            tmp=self._options.tmp.absolute() / plan.instance[:12],  # short: the path of a socket has at most 107 bytes
            memory=plan.key[-1],
            project=function.project,
            layers=tuple(self._code_path(dependency.code).absolute() for dependency in function.dependencies),
            maps_port=self.walls["http_network"] == "mapped" and family_of(function.runtime) is Family.HTTP,
            gpus=plan.gpus,
            folders=tuple(folders_of(function, self.folders).values()),
            access=access and access.of(function, plan.instance),
            links=self._links if bridge_of(plan.command) else {},
            agency=self._options.agency_of(function, plan.instance),
        )


def _make_executable(file: Path) -> None:
    """Make a file executable, as zips of many tools do not. Leave it if that fails: its start has the reason."""
    with suppress(OSError):
        if not (mode := file.stat().st_mode) & 0o111:
            file.chmod(mode | 0o111)


def _capture_error(task: Callable[..., Result], *arguments: object) -> Result | OSError:
    """Run a task and return the OSError that it raises, because a caller cancelled meanwhile would not receive it."""
    try:
        return task(*arguments)
    except OSError as error:
        return error


class LocalProcess:
    """Child process and its enclosure (protocol ``InstanceProcess``).

    The enclosure is created in a thread while the process starts: ``enclosing`` is its future result.
    """

    channel: LocalChannel  #: set when its instance exists

    def __init__(self, spec: InstanceSpec, child: ChildProcess) -> None:
        self.id, self.spec, self.child = spec.instance_id, spec, child
        self.enclosing: Future[Enclosure | OSError] | None = None
        self.enclosure: Enclosure | None = None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    def kill(self) -> None:
        self.child.kill()
        if self.enclosure is not None:
            self.enclosure.kill()

    def reap(self) -> Exit:
        # Asked first: the process is a zombie and still holds its pid, so its group is certainly its own.
        out_of_memory = self.enclosure is not None and self.enclosure.out_of_memory()
        return Exit(self.child.reap(), out_of_memory)

    def clear(self) -> None:
        """Remove the enclosure as soon as it exists, then the temporary folder. Blocks."""
        enclosing = self.enclosing
        enclosure = enclosing.result() if enclosing is not None and not enclosing.cancelled() else None
        if enclosure is not None and not isinstance(enclosure, OSError):
            enclosure.remove()
        remove_tree(self.spec.tmp)
