"""Attempts of the pool on instances that end before they read the request. Instances are simulated."""

from __future__ import annotations

from pathlib import Path

from engine.executors.allocator import TRIES, Allocator
from engine.executors.call import Call, End
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.executors.logs import LogBuffer, LogFiles, LogRecorder
from engine.executors.pool import Pool
from engine.logs.feed import LogBoard
from engine.logs.lines import STDOUT, encode, plain
from engine.model import Code, Invocation
from engine.model.clock import SystemClock
from engine.runtimes.protocol import DONE, READY, Answer
from tests.support.executing import function, invocation
from tests.unit.executors.test_allocator import Bare, Loading


class Leaving(Bare):
    """Instance that ends before it reads a request, unless ``stays``."""

    stays = False

    async def invoke(self, call: Call, invocation: Invocation, *limits: float) -> Answer | None:
        call.begin(self, 1)
        if self.stays:
            return Answer(DONE, Code.OK, 0, "", b"1")
        self.kill(End.EXITED)
        return None


class Ready(Loading):
    """Launcher whose instances are ready at once, after a line. ``leaving`` of them end before they read a request."""

    def __init__(self, leaving: int) -> None:
        super().__init__()
        self.leaving = leaving

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        instance = Leaving(owner, plan)
        self.instances.append(instance)
        instance.stays = len(self.instances) > self.leaving
        return instance

    async def load(self, instance: Instance, start: Call) -> Answer:
        start.log_buffer = start.log_buffer or LogBuffer(start.invocation, 1 << 10)
        start.log_buffer.add(encode(0, STDOUT, b"started\n"))
        return Answer(READY, Code.OK, 0, "", b"")


def pool_of(launcher: Ready, folder: Path) -> Pool:
    clock, files = SystemClock(), LogFiles(folder, 1 << 20)
    allocator = Allocator(launcher, memory=0, idle=1000.0, clock=clock)
    return Pool(launcher, allocator, LogRecorder(files, limit=1 << 10, clock=clock, board=LogBoard()), files, clock)


async def test_a_request_that_was_not_read_runs_on_another_instance(tmp_path: Path) -> None:
    launcher = Ready(leaving=TRIES - 1)

    outcome = await pool_of(launcher, tmp_path).execute(function("any"), invocation())

    assert (outcome.ok, len(launcher.instances), [instance.assigned for instance in launcher.instances]) == (
        True,
        TRIES,
        [0] * 3,
    )
    assert plain(outcome.log) == b"started\n" * TRIES


async def test_three_new_instances_that_do_not_read_the_request_end_it(tmp_path: Path) -> None:
    launcher = Ready(leaving=100)
    opened = pool_of(launcher, tmp_path)

    outcome = await opened.execute(function("any"), invocation())

    assert (outcome.code, len(launcher.instances)) == (Code.ENGINE, TRIES)
    assert (opened.statistics().alive, opened.statistics().memory) == (0, 0)
