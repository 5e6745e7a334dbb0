"""Numbers of the run queue, as health and metrics show them."""

from __future__ import annotations

from msgspec import Struct


class QueueStatistics(Struct, frozen=True, kw_only=True):
    slots: int
    sync_slots: int  #: of ``slots``, those that asynchronous work leaves free
    memory_limit: int  #: MiB
    running: int
    running_sync: int
    memory: int  #: MiB that running invocations take
    waiting_in_memory: int
    window_bytes: int
    oldest_due_at: float | None  #: earliest due time among the first entries of all queues; None: no entry in memory
    functions: int  #: functions with a share
