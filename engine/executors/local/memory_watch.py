"""Enforcement of memory limits in the cases in which the kernel alone does not enforce them.

The kernel enforces the limit of an instance that has a cgroup and keeps no files in memory. In two cases the engine
measures the memory in use instead. First, if the files of the temporary folder are in memory, the cgroup's limit is the
sum of both and the kernel cannot limit the memory alone. Second, without cgroups, the kernel has no limit for all
processes of an instance together. Only instances that serve a request are measured: those for which the kernel has
raised an alarm, or every one if the kernel offers no alarms. The kernel raises an alarm when memory and files together
reach about the memory limit. The instance is then measured at short intervals, which grow.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from engine.executors.call import End
from engine.executors.instance import Instance
from engine.isolation.limits import Enclosure, Isolation

_INTERVAL = 0.5  #: seconds between measurements
_SOON = 0.01  #: seconds until the first measurement after an alarm; doubles each time


class MemoryWatch:
    """Task that measures instances and kills those above their memory limit. Blocking calls run in ``threads``."""

    def __init__(self, isolation: Isolation, threads: Executor) -> None:
        self._isolation, self._threads = isolation, threads
        self._loop = asyncio.get_running_loop()
        self._enclosures: dict[Instance, Enclosure] = {}
        self._alarms: dict[Instance, int] = {}  #: descriptors
        self._watched: set[Instance] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _INTERVAL
        self._closed = False

    def add(self, instance: Instance, enclosure: Enclosure) -> None:
        """Measure the instance from now on, unless the kernel alone enforces its limit.

        Call after the limits of the instance are in force and before its first request.
        """
        if enclosure.shared:
            self._enclosures[instance] = enclosure
            # Setting an alarm takes the kernel 10 to 20 ms; neither the loop nor the function waits for that.
            setting = self._loop.run_in_executor(self._threads, self._set_alarm, enclosure)
            setting.add_done_callback(partial(self._on_alarm_set, instance))

    def discard(self, instance: Instance) -> None:
        self._enclosures.pop(instance, None)
        self._watched.discard(instance)
        alarm = self._alarms.pop(instance, None)
        if alarm is not None:
            self._loop.remove_reader(alarm)
            os.close(alarm)

    def close(self) -> None:
        """Stop measuring. Call when all instances have exited."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _set_alarm(self, enclosure: Enclosure) -> tuple[int | None, int]:
        """Set the kernel's alarm for an instance. Return the descriptor of the alarm, and the bytes in use.

        Return None and 0 if the kernel offers no alarm. Blocks. The caller must compare the bytes with the limit,
        because the kernel raises no alarm if the limit is exceeded already.
        """
        alarm = enclosure.alarm()
        return alarm, 0 if alarm is None else self._isolation.measure([enclosure])[0]

    def _on_alarm_set(self, instance: Instance, setting: asyncio.Future[tuple[int | None, int]]) -> None:
        alarm, used = setting.result()
        if alarm is None:
            instance.watched = True
            self.note_work(instance)
        elif instance.closed.is_set():
            os.close(alarm)
        else:
            self._alarms[instance] = alarm
            self._loop.add_reader(alarm, self._on_alarm, instance)
            self._enforce([instance], [used])

    def _on_alarm(self, instance: Instance) -> None:
        os.eventfd_read(self._alarms[instance])
        # An instance that raised an alarm may soon exceed its limit. While its use stays above the alarm level, no
        # further alarm is raised, so it is measured whenever it has work.
        instance.watched = True
        self._check_soon(instance)

    def note_work(self, instance: Instance) -> None:
        """Measure an instance that is ``watched``, because it has work now."""
        if self._timer is not None:
            self._watched.add(instance)
        elif instance in self._alarms:
            self._check_soon(instance)
        else:
            self._watched.add(instance)
            self._schedule(_INTERVAL)

    def _check_soon(self, instance: Instance) -> None:
        self._watched.add(instance)
        self._pause = _SOON
        self._schedule(0)

    def _schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_later(seconds, self._measure)

    def _measure(self) -> None:
        self._timer = None
        self._watched = {instance for instance in self._watched if instance.calls and instance.end is None}
        if not self._watched:
            return
        instances = list(self._watched)
        enclosures = [self._enclosures[instance] for instance in instances]
        measuring = self._loop.run_in_executor(self._threads, self._isolation.measure, enclosures)
        measuring.add_done_callback(lambda done: self._enforce(instances, done.result()))
        self._schedule(self._pause)
        self._pause = min(2 * self._pause, _INTERVAL)

    def _enforce(self, instances: Sequence[Instance], used: Sequence[int]) -> None:
        for instance, size in zip(instances, used, strict=True):
            if size > instance.memory << 20 and instance.end is None:
                instance.out_of_memory = True
                instance.kill(End.EXITED)
