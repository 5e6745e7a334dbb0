"""Ends instances that use more memory than they may, where the kernel alone does not.

It does where a control group holds memory and nothing else. Where files of a temporary folder count as memory too,
the group is given room for both, and where there is no group nobody counts: there the instances are looked at, and
only while they have work: from when the kernel raises an alarm, or else all of them. An alarm comes when there is just
too little to complain of: from then on what a request does is looked at in quick succession, then less and less often.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from engine.executors.process import End, Instance
from engine.isolation.limits import Enclosure, Isolation

_INTERVAL = 0.5  #: seconds
_SOON = 0.01  #: seconds after an alarm, twice as long each time


class MemoryWatch:
    def __init__(self, isolation: Isolation, threads: Executor) -> None:
        self._isolation, self._threads = isolation, threads
        self._loop = asyncio.get_running_loop()
        self._alarms: dict[Instance, int] = {}  #: descriptors
        self._suspects: set[Instance] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _INTERVAL
        self._closed = False

    def add(self, instance: Instance, enclosure: Enclosure) -> None:
        """Once it is enclosed, and before it has work."""
        if enclosure.shared:
            # Setting an alarm takes the kernel 10 to 20 ms, which neither the loop nor the function waits for.
            setting = self._loop.run_in_executor(self._threads, self._set_alarm, enclosure)
            setting.add_done_callback(partial(self._alarm_set, instance))

    def discard(self, instance: Instance) -> None:
        self._suspects.discard(instance)
        alarm = self._alarms.pop(instance, None)
        if alarm is not None:
            self._loop.remove_reader(alarm)
            os.close(alarm)

    def close(self) -> None:
        """When all instances are gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _set_alarm(self, enclosure: Enclosure) -> tuple[int | None, int]:
        """With what was used already, about which no alarm is raised any more."""
        alarm = enclosure.alarm()
        return alarm, 0 if alarm is None else self._isolation.measure([enclosure])[0]

    def _alarm_set(self, instance: Instance, setting: asyncio.Future[tuple[int | None, int]]) -> None:
        alarm, used = setting.result()
        if alarm is None:
            instance.on_work = self._suspect
            self._suspect(instance)
        elif instance.gone.is_set():
            os.close(alarm)
        else:
            self._alarms[instance] = alarm
            self._loop.add_reader(alarm, self._alarmed, instance)
            self._judge([instance], [used])

    def _alarmed(self, instance: Instance) -> None:
        os.eventfd_read(self._alarms[instance])
        # What has raised an alarm may soon have taken all that there is; and if it stays above, none is raised again.
        instance.on_work = self._suspect
        self._hurry(instance)

    def _suspect(self, instance: Instance) -> None:
        if self._timer is not None:
            self._suspects.add(instance)
        elif instance in self._alarms:
            self._hurry(instance)
        else:
            self._suspects.add(instance)
            self._schedule(_INTERVAL)

    def _hurry(self, instance: Instance) -> None:
        self._suspects.add(instance)
        self._pause = _SOON
        self._schedule(0)

    def _schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        self._suspects = {one for one in self._suspects if one.calls and one.end is None}
        if not self._suspects:
            return
        suspects = list(self._suspects)
        enclosures = [one.enclosure for one in suspects]
        looking = self._loop.run_in_executor(self._threads, self._isolation.measure, enclosures)
        looking.add_done_callback(lambda done: self._judge(suspects, done.result()))
        self._schedule(self._pause)
        self._pause = min(2 * self._pause, _INTERVAL)

    def _judge(self, suspects: Sequence[Instance], used: Sequence[int]) -> None:
        for instance, size in zip(suspects, used, strict=True):
            if size > instance.memory << 20 and instance.end is None:
                instance.out_of_memory = True
                instance.kill(End.DIED)
