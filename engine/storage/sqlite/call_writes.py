"""Rows of calls and groups, and calls inside a transaction, in the writer's thread or a reader's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from engine.errors import GroupConflict, InvalidField, UnknownGroup
from engine.model import Invocation
from engine.model.identity import Identity, accepted_at
from engine.protocols.calls import Group, GroupState, Membership, NewCall
from engine.storage.sqlite.batch import SQL, Statement, WritingConnection
from engine.storage.sqlite.checksums import payload_sum, row_sum

GROUP = "key, project, kind, need_all, created, total, stored, done, failed, state, ended, message"
#: Key of the last continuation of a group: from its own over the steps of the chain that it begins.
LAST = (
    "WITH RECURSIVE step (key, number) AS (SELECT ?1, 0 UNION ALL SELECT g.key, number + 1 FROM step JOIN call c"
    " ON c.key = step.key JOIN call_group g ON g.key = c.grp AND g.kind = 1)"
    " SELECT coalesce((SELECT step.key FROM step JOIN invocation USING (key) ORDER BY number DESC LIMIT 1), 0)"
)
INSERT = "INSERT INTO call (key, parent, token, depth, grp, place, only, expires, sum) VALUES (?,?,?,?,?,?,?,?,?)"
INSERT_GROUP = (
    "INSERT INTO call_group (key, project, token, kind, need_all, created, total, stored, sum)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
#: Key of a group that was created with a token.
BY_KEY = "SELECT key FROM call_group WHERE project = ? AND token = ?"
#: Key of an invocation that has a group's place, a parent's token, or a unique event and has not ended.
AT_PLACE = "SELECT key FROM call WHERE grp = ? AND place = ?"
BY_TOKEN = "SELECT token, key FROM call WHERE parent = ? AND token IN ({})"
UNIQUE = (
    "SELECT key FROM (SELECT key FROM call WHERE only = ? ORDER BY key DESC LIMIT 1) JOIN invocation USING (key)"
    " WHERE state < 3"
)


class CallRows:
    """Rows of calls and groups to be written, for invocations with one parent."""

    def __init__(self, parent: int, depth: int) -> None:
        self.parent, self._depth = parent, depth
        self.made: list[Invocation] = []
        self.stored: Sequence[Invocation] = ()
        self.calls: list[tuple[Any, ...]] = []
        self.groups: list[tuple[Any, ...]] = []
        self.first: dict[bytes, int] = {}  #: key of the first invocation with a token or unique event

    def add(self, call: NewCall, place: tuple[int, int] | None) -> None:
        made = call.invocations
        for number, (invocation, expires) in enumerate(zip(made, call.expires, strict=True)):
            last = number == len(made) - 1
            group, at = (place or (None, None)) if last else (made[number + 1].key, 0)
            only = call.only if not number and call.only else None
            token = call.token if last and call.token else None
            row = (invocation.key, self.parent or None, token, self._depth, group, at, only)
            self.calls.append((*row, expires, row_sum(*row)))
            if number:
                fixed = (invocation.key, call.project, None, 1, 1, accepted_at(invocation.key))
                self.groups.append((*fixed, 1, 1, row_sum(*fixed)))
        self.made += made


def depth_of(db: sqlite3.Connection, parent: int, most: int) -> int:
    """Return the depth of the calls of a parent. Raises InvalidField if it is too deep."""
    if not parent:
        return 0
    row = db.execute("SELECT depth FROM call WHERE key = ?", (parent,)).fetchone()
    depth = 1 + (row[0] if row is not None else 0)
    if depth > most:
        raise InvalidField("depth", depth, f"must be at most {most} (queue.depth): each call queued the next one")
    return depth


def check_open(db: sqlite3.Connection, identity: Identity, member: Membership, count: int) -> None:
    group = read_group(db, member.group)
    if group is None or group.project != member.project or group.chain:
        raise UnknownGroup(identity.request_id(member.group))
    if group.state in (GroupState.CANCELLING, GroupState.CANCELLED, GroupState.ABANDONED):
        raise GroupConflict(identity.request_id(member.group), "was cancelled, or abandoned: create another")
    if group.total is not None and member.first + count > group.total:
        raise GroupConflict(identity.request_id(member.group), f"is sealed with {group.total} members")


def read_group(db: sqlite3.Connection, key: int) -> Group | None:
    row = db.execute(f"SELECT {GROUP} FROM call_group WHERE key = ?", (key,)).fetchone()
    return None if row is None else to_group(row, db.execute(LAST, (key,)).fetchone()[0])


def to_group(row: tuple[Any, ...], last: int = 0) -> Group:
    fields = dict(zip(GROUP.split(", "), row, strict=True))
    kind, need_all, state = fields.pop("kind"), bool(fields.pop("need_all")), GroupState(fields.pop("state"))
    return Group(chain=kind == 1, need_all=need_all, state=state, last=last, **fields)


def release_row(db: WritingConnection, key: int, now: float, payload: bytes, priority_step: float) -> int:
    """Make a continuation due, after its delay, with its payload. Return the bytes by which the payload grows."""
    held = "SELECT function_id, priority, first_due, size FROM invocation WHERE key = ? AND state = -1"
    row = db.execute(held, (key,)).fetchone()
    if row is None:
        return 0
    function_id, priority, first_due, size = row
    due = now + max(0.0, first_due - accepted_at(key))
    db.execute(
        "UPDATE invocation SET state = 1, due = ?1, first_due = ?1, rank = ?2, size = ?3, sum = NULL WHERE key = ?4",
        (due, due - priority * priority_step, len(payload), key),
    )
    db.execute("UPDATE payload SET body = ?, sum = ? WHERE key = ?", (payload, payload_sum(key, payload), key))
    grown: int = len(payload) - size
    db.execute(SQL[Statement.TALLY], (function_id, 0, grown))
    return grown
