"""Storage of an engine: all data that must survive a restart. Each part has a protocol of its own.

All parts of a storage keep these promises, on which the components above rely:

- **Calls.** A method that is not a coroutine function submits its write when it is called. Its caller may drop the
  returned future.
- **Durability.** When a call returns or its future is done, its write is on disk. A crash of the engine or of the
  machine does not undo it. The same holds when ``then`` is called with a stored write. Only ``Journal.start`` and
  ``Journal.settle`` return before.
- **Atomicity.** Each call is stored completely or not at all, also if its caller is cancelled meanwhile.
- **Order.** Writes become durable in the order of their calls. If a write survives a crash, all earlier writes
  survive too, except refused ones.
- **Reads.** A call sees all writes that were submitted before it, including those that are not on disk yet. The call
  may also see writes submitted shortly after it. ``Records.list`` and ``get`` and ``Outbox.page``, ``counts`` and
  ``given_up`` see all writes that are done, and may miss the others.
- **Callbacks.** ``then`` is called once in the event loop, even if the caller was cancelled. ``then`` of ``settle`` is
  called only when the end is stored. Callbacks of stored writes are called in the order of the calls, each before its
  caller continues. If a method raises an error instead of returning a future, ``then`` is not called. A callback must
  not raise.
- **Failures.** While writes fail, a call that writes raises NotStored, or OutcomeUnknown if its write may be on disk.
  In both cases, later calls do not see the write; after OutcomeUnknown, the next engine may. A call that only reads may
  raise NotStored, too. ``Journal.start`` and ``Journal.settle`` never raise: their writes are kept and stored later, in
  their order, before all newer writes. The storage tries by itself until writes succeed again.
- **Damage.** A call that meets a damaged page raises PageDamaged. ``Window`` and ``Outbox.due`` leave out rows that
  cannot be read instead. Nothing is pruned from the first damage on. After an append has met a damaged page, or the end
  of an attempt or delivery, which is then neither stored nor announced nor made again, all appends raise PageDamaged,
  and ``damaged`` returns.
  An invocation whose payload was changed on disk has ``Invocation.damage``.
- **End.** After a failure that only a restart can cure, ``Storage.broken`` is True, and the block of ``open_storage``
  ends with JournalBroken. When ``Cluster.lost`` returns, ``broken`` is True as well, but the block does not end by
  itself. In both cases, writes raise NotStored from then on, and ``start`` and ``settle`` do nothing. The next engine
  finds the invocations as they were last stored.

Callers use a storage in one event loop and its thread only. They call ``Journal.recover`` once, before any other method
of ``Journal`` and ``Window``. They open and close a storage by ``engine.storage.open_storage``, which describes both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from engine.metrics.histogram import Distribution
from engine.model.identity import Identity
from engine.protocols.calls import Calls
from engine.protocols.catalog import CatalogStore, ResourceStore
from engine.protocols.cursors import Cursors
from engine.protocols.journal import Journal, Window
from engine.protocols.outbox import Outbox
from engine.protocols.records import Records
from engine.protocols.status_log import StatusLog
from engine.protocols.triggers import Store


class CopySteps(Struct, frozen=True, kw_only=True):
    """Steps in which a storage was copied. Writes wait while a step is made."""

    made: int = 0
    slow: int = 0  #: steps that took longer than 5 ms
    longest: float = 0.0  #: seconds


class StorageStatistics(Struct, frozen=True, kw_only=True):
    batch_size: Distribution
    commit_seconds: Distribution
    in_flight_seconds: float  #: seconds since the current commit began; 0: no commit runs
    failure: str  #: current failure of writes; empty while writes succeed
    damage: str = ""  #: first damage that was met, with the next step; empty: none
    refusal: str = ""  #: damage for which nothing is appended any more, with the next step; empty: none
    unstored: int = 0  #: ends of attempts and deliveries that could not be stored because of damage
    log_size: int = 0  #: bytes of the write-ahead log
    checkpoint_age: float = 0.0  #: seconds since the log was last copied to the database, or since the start
    checkpoint_failure: str = ""  #: error of the last such copy; empty if it succeeded
    durable: bool = True  #: False: commits are not synced to disk
    lost_secrets: int = 0  #: functions and triggers whose secrets could not be decrypted, nor were set since the start


class Cluster(Protocol):
    """Membership of an engine in the group of engines that share a storage. A single engine is its whole group."""

    @property
    def slot(self) -> int:
        """Number of this engine in its group, 0 to 63. The keys that ``Storage.identity`` issues contain this slot."""
        ...

    def owns(self, name: str) -> bool:
        """Return whether this engine does the work that only one engine of the group may do.

        ``name`` identifies the work, such as the id of a trigger. The answer does not change while the engine is a
        member.
        """
        ...

    def remaining(self) -> float:
        """Return the seconds for which the engine is certainly a member yet; infinite: as long as it runs."""
        ...

    async def lost(self) -> None:
        """Return when the engine has lost its membership, and another engine may do its work.

        ``Storage.broken`` is True then.
        """
        ...


class Storage(Protocol):
    """Storage of one engine. See the module for promises that hold for all parts."""

    @property
    def identity(self) -> Identity:
        """Generator of keys. Its keys are larger than those of all stored invocations."""
        ...

    @property
    def cluster(self) -> Cluster: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def window(self) -> Window: ...

    @property
    def records(self) -> Records: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def status_log(self) -> StatusLog: ...

    @property
    def catalog(self) -> CatalogStore: ...

    @property
    def resources(self) -> ResourceStore: ...

    @property
    def cursors(self) -> Cursors: ...

    @property
    def calls(self) -> Calls: ...

    def store(self, plugin: str) -> Store:
        """Return the store for the durable tables of the named plugin."""
        ...

    async def copy_to(self, folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        """Write a copy of the storage into the empty ``folder``, while calls of other methods go on.

        The copy is consistent, is on disk on return, and has all writes that were done before the call. It may have
        later ones. ``on_progress`` is called with the bytes copied so far and all bytes.

        Raises BackupRuns if another copy runs, BackupFailed if the folder cannot be written, ShuttingDown if the
        storage closes meanwhile, and Unsupported if this kind of storage is copied by other means.
        """
        ...

    @property
    def broken(self) -> bool:
        """True after a failure that only a restart can cure, and after the loss of the membership."""
        ...

    async def damaged(self) -> str:
        """Return why nothing can be appended any more because of damage, as soon as this is so.

        The next start is refused with the same words.
        """
        ...

    def statistics(self) -> StorageStatistics: ...
