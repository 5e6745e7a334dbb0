"""Mutants: patches of the engine's source, each of which breaks a promise that the proof must then find broken.

A patch replaces a text that occurs once in its module. The proof runs on a copy of the sources, see ``mutation``.
"""

from __future__ import annotations

from msgspec import Struct

from bench.proof.trials import BACKUPS, SIMULATED, STORED

BATCH = "engine/storage/sqlite/batch.py"
#: Lines that end a transaction in the middle of a batch, and begin another one.
_SPLIT = 'self.execute("COMMIT")\n{0}self.execute("BEGIN IMMEDIATE")\n'


class Mutant(Struct, frozen=True, kw_only=True):
    """Patch of one module. The trial with one of these seeds must fail on it."""

    name: str
    promise: str  #: what the patch breaks
    module: str
    old: str
    new: str
    trial: str = STORED
    seeds: tuple[int, ...] = (1, 2, 3)


MUTANTS = (
    Mutant(
        name="payload checksum unchecked",
        promise="damaged bytes never run",
        module="engine/storage/sqlite/checksums.py",
        old="    if stored is not None and stored != payload_sum(key, body):\n",
        new="    if False:\n",
    ),
    Mutant(
        name="fence off",
        promise="a request that was refused is never stored",
        module="engine/storage/sqlite/writer.py",
        old="        if await self._fence(callers, after_fsync=failure.fsync):\n",
        new="        if True:\n",
    ),
    Mutant(
        name="ordering keys ignored",
        promise="invocations of one ordering key run one after another",
        module="engine/storage/sqlite/invocation_writes.py",
        old="            if room[key] <= 0:\n",
        new="            if False:\n",
    ),
    Mutant(
        name="log check off",
        promise="a damaged log never loses commits in silence",
        module="engine/storage/sqlite/journal_check.py",
        old='        problem = (lost_frames(path) or log_problem(path)) if _size(path) else ""\n',
        new='        problem = ""\n',
    ),
    Mutant(
        name="prune of what is owed",
        promise="each outcome is delivered",
        module="engine/storage/sqlite/purge.py",
        old="            if end > cutoff or pending:\n",
        new="            if end > cutoff:\n",
    ),
    Mutant(
        name="crashes not counted",
        promise="an invocation that crashes the engine ends",
        module="engine/storage/sqlite/rows.py",
        old="deaths = deaths + begun, start_deaths = start_deaths + 1 - begun",
        new="deaths = deaths",
    ),
    Mutant(
        name="retries never due",
        promise="a failed attempt is retried in time",
        module="engine/storage/sqlite/invocation_writes.py",
        old="moved = (after.rank, after.due_at, ",
        new="moved = (after.rank, after.due_at + 1e9, ",
    ),
    Mutant(
        name="status lines in a commit of their own",
        promise="a state and its line are stored together",
        module=BATCH,
        old="            if not values:\n                continue\n",
        new=(
            "            if not values:\n                continue\n"
            "            if statement is Statement.STATUS:\n"
            f"                {_SPLIT.format(' ' * 16)}"
        ),
    ),
    Mutant(
        name="a batch in two commits",
        promise="each call is stored completely or not at all",
        module=BATCH,
        old="            for request in batch:\n                if isinstance(request, CallRequest):\n",
        new=(
            f"            {_SPLIT.format(' ' * 12)}"
            "            for request in batch:\n                if isinstance(request, CallRequest):\n"
        ),
    ),
    Mutant(
        name="backup not synced",
        promise="a finished backup is on disk",
        module="engine/storage/sqlite/copying.py",
        old="                await anyio.to_thread.run_sync(target.sync)\n                return CopySteps(",
        new="                return CopySteps(",
        trial=BACKUPS,
    ),
    Mutant(
        name="restore named before it is whole",
        promise="a restore that was not finished is not taken for a journal",
        module="engine/maintenance/restore.py",
        old='"journal.db", "journal.db.restoring"',
        new='"journal.db", "journal.db"',
        trial=BACKUPS,
    ),
    Mutant(
        name="outcomes of cancelled ones delivered",
        promise="a cancelled invocation is delivered nowhere",
        module="engine/pipeline/settling.py",
        old="    if settings is None or state is State.WAIT or outcome.cancelled:\n",
        new="    if settings is None or state is State.WAIT:\n",
    ),
    Mutant(
        name="no hold on a doubtful clock",
        promise="nothing expires by a clock that is in doubt",
        module="engine/model/expiry.py",
        old="            if self._seen[0] - expected > self._tolerance:\n",
        new="            if False:\n",
    ),
    Mutant(
        name="commits not synced",
        promise="202 means stored",
        module="engine/storage/sqlite/database.py",
        old="PRAGMA synchronous = FULL;",
        new="PRAGMA synchronous = OFF;",
        trial=BACKUPS,
    ),
    Mutant(
        name="idempotency keys ignored",
        promise="a repeated request starts nothing",
        module="engine/storage/sqlite/invocation_writes.py",
        old="    if earlier:\n",
        new="    if False:\n",
    ),
    Mutant(
        name="ends not taken off the backlog",
        promise="counters agree with rows",
        module="engine/storage/sqlite/invocation_writes.py",
        old="        rows.append((Statement.TALLY, (before.function_id, -1, -len(before.payload))))\n",
        new="",
    ),
    Mutant(
        name="too old invocations run",
        promise="an invocation beyond its age is discarded",
        module="engine/model/retry.py",
        old="        return now > invocation.first_due_at + rules.max_age\n",
        new="        return False\n",
        trial=SIMULATED,
    ),
    Mutant(
        name="one retry too many",
        promise="retries are limited",
        module="engine/model/retry.py",
        old="failures > plan.retries:",
        new="failures > plan.retries + 1:",
        trial=SIMULATED,
    ),
    Mutant(
        name="retry rules ignored",
        promise="rules decide about retries by error",
        module="engine/model/retry.py",
        old="            if rule.matches(outcome.code, error):\n",
        new="            if False:\n",
        trial=SIMULATED,
    ),
    Mutant(
        name="limits of functions ignored",
        promise="a function has no more instances than its settings allow",
        module="engine/scheduling/share.py",
        old="        return 0 <= self.limit <= self.running\n",
        new="        return False\n",
        trial=SIMULATED,
    ),
    Mutant(
        name="end stored without its delivery",
        promise="the outcome and its pending delivery are one commit",
        module="engine/storage/sqlite/invocation_writes.py",
        old="    if settlement.deliver_to is not None:\n",
        new="    if False:\n",
    ),
    Mutant(
        name="cursor not moved",
        promise="requests and the cursor of their source are one commit",
        module="engine/storage/sqlite/cursors.py",
        old="            if move is not None:\n                _move(db, move)\n",
        new="",
    ),
    Mutant(
        name="interrupted work not revived",
        promise="an invocation that ran in a crash runs again",
        module="engine/storage/sqlite/rows.py",
        old='REVIVE = "UPDATE invocation SET state = 0, ',
        new='REVIVE = "UPDATE invocation SET state = 2, ',
    ),
    Mutant(
        name="cancelled without releasing the next",
        promise="the end of an invocation starts the next one of its ordering key",
        module="engine/storage/sqlite/invocation_writes.py",
        old="        if ordering_key is not None:\n",
        new="        if False:\n",
    ),
    Mutant(
        name="pauses ignored",
        promise="no invocation of a paused function starts",
        module="engine/scheduling/scheduler.py",
        old="            self._queue.pause(function_id)\n",
        new="",
    ),
)
