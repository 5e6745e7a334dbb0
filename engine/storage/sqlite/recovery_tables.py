"""Texts and statements of a recovery: the meaning of lost rows, and how invocations without a row are found."""

from __future__ import annotations

from typing import Any

from engine.model import AsyncSettings, Function
from engine.protocols import StatusTarget

#: Tables in the order in which they are recovered, with the meaning of a lost row and the next step.
MEANING = {
    "meta": ("a number of the engine is lost", ""),
    "function": ("the name of a function is lost", "deploy the function again if it is missing"),
    "function_version": ("the version of the function cannot run", "deploy or publish it again"),
    "async_settings": ("retries, age limit and destinations are those of a new function", "set them again"),
    "resource": ("an alias, trigger, dependency or the like is gone", "create it again"),
    "cursor": ("its trigger begins as a new one", "compare what it has read with its source"),
    "plugin_row": ("a stream, topic, record or the like is gone", "create or send it again"),
    "invocation": ("rows that no index names may be lost, too", "send events again whose ids are not found"),
    "payload": ("events are lost; those of known invocations are listed", ""),
    "result": ("records have neither result nor log", ""),
    "attempt": ("records lack attempts", ""),
    "owed": ("an outcome is not delivered", "look at its record, and tell the receiver"),
    "idempotency": ("a repetition of its request runs again", ""),
    "status_target": ("states of a function are not logged", "set its status log again"),
    "status_log": ("changes of states are missing in their log stream", ""),
}
TYPES: dict[str, Any] = {"INTEGER": int, "REAL": (float, int), "TEXT": str, "BLOB": bytes}
#: Columns with JSON, and its type.
BODIES: dict[str, tuple[int, Any]] = {
    "function_version": (2, Function),
    "async_settings": (2, AsyncSettings),
    "resource": (3, Any),
    "status_target": (4, StatusTarget),
}
#: Indexes that name invocations: the state of these, and the columns of an entry.
INDEXES = {
    "ready": (0, ("function_id", "rank", "key")),
    "delayed": (1, ("due", "key")),
    "running": (2, ("function_id", "key")),
    "held": (-1, ("function_id", "key")),
    "finished": (3, ("function_id", "key")),
    "ordering": (None, ("function_id", "ordering_key", "state", "key")),
}
#: Indexes that name rows of other tables: the table, and the condition for the row of an entry.
OTHERS = {
    "owed_key": ("owed", "key = ?1 AND owed_id = ?2"),
    "idempotency_expires": ("idempotency", "expires = ?1 AND function_id = ?2 AND token = ?3"),
    "resource_owner": ("resource", "owner = ?1 AND kind = ?2 AND id = ?3"),
}
PREPARE = (
    "CREATE TEMP TABLE seen (key INTEGER PRIMARY KEY, function_id, state, rank, due, ordering_key)",
    "DELETE FROM payload WHERE length(body) <> (SELECT size FROM invocation i WHERE i.key = payload.key)",
    "INSERT OR IGNORE INTO function (function_id, project, package, name) SELECT function_id,"
    " json_extract(body, '$.project'), json_extract(body, '$.package'), json_extract(body, '$.name')"
    " FROM (SELECT function_id, CAST(body AS TEXT) AS body FROM function_version)",
)
#: Cursors of lost triggers, which get other ids when they are created again.
STRAY = (
    "DELETE FROM cursor WHERE trigger_id NOT IN (SELECT id FROM resource WHERE kind = 'trigger')"
    " RETURNING trigger_id, name"
)
_ALONE = "key NOT IN (SELECT key FROM invocation)"
#: Invocations without a row that other tables name. Then waiting ones whose event is there get a new row, if their
#: function has no version but ``latest``.
REMAKE = (
    f"INSERT OR IGNORE INTO seen (key, state) SELECT key, 3 FROM owed WHERE {_ALONE}",
    f"INSERT OR IGNORE INTO seen (key) SELECT key FROM payload WHERE {_ALONE}",
    f"INSERT OR IGNORE INTO seen (key) SELECT key FROM result WHERE {_ALONE}",
    "UPDATE seen SET function_id = i.function_id FROM idempotency i WHERE i.key = seen.key AND state = 1",
    "INSERT INTO invocation (key, function_id, version, alias, source, state, priority, rank, first_due, due, attempt,"
    " hops, memory, size, ordering_key) SELECT key, function_id, 'latest', '', 'API', state, 0, coalesce(rank, due,"
    " at), coalesce(due, at), coalesce(due, at), 1 + (SELECT count(*) FROM attempt a WHERE a.key = s.key), 0, 0,"
    " length(body), ordering_key FROM (SELECT *, (key >> 15) / 1000.0 AS at FROM seen WHERE state < 3) s"
    " JOIN payload USING (key) WHERE function_id IN (SELECT function_id FROM function_version GROUP BY 1"
    " HAVING max(version) = 'latest' AND count(*) = 1)",
)
#: Queries for keys of invocations, each with table, state, meaning, and next step.
LISTS = {
    "SELECT key FROM seen JOIN invocation USING (key)": (
        ("invocation", "WAIT", "only its event is left: it runs without its priority, origin and earlier attempts", "")
    ),
    f"SELECT key FROM seen WHERE state < 3 AND {_ALONE}": (
        ("invocation", "WAIT", "it does not run, and its idempotency key is free again", "send its event again")
    ),
    f"SELECT key FROM seen WHERE state >= 3 AND {_ALONE}": (
        ("invocation", "ended", "its record is lost, and a delivery of its outcome is given up", "")
    ),
    f"SELECT key FROM seen WHERE state IS NULL AND {_ALONE}": (
        ("invocation", "unknown", "it does not run, and its idempotency key is free again", "send its event again")
    ),
    "SELECT key FROM invocation WHERE state < 3 AND key NOT IN (SELECT key FROM payload)": (
        ("payload", "WAIT", "it fails with code 150500, which on_failure gets", "send its event again")
    ),
    "SELECT key FROM invocation WHERE state >= 3 AND key NOT IN (SELECT key FROM payload)": (
        ("payload", "ended", "its record has no event", "")
    ),
}
#: Statements that complete the fresh journal. Running invocations wait again, without a counted crash.
COMPLETE = (
    *(f"DELETE FROM {table} WHERE {_ALONE}" for table in ("payload", "result", "attempt")),
    f"DELETE FROM idempotency WHERE key IN (SELECT key FROM seen WHERE coalesce(state, 0) < 3) AND {_ALONE}",
    "DELETE FROM status_log WHERE target_id NOT IN (SELECT target_id FROM status_target)",
    "INSERT INTO status_log (target_id, state, at, code, message, key) SELECT target_id, 0, strftime('%s'), 0, '', key"
    " FROM invocation i JOIN status_target USING (function_id, version) WHERE i.state = 2 AND enabled = 1",
    "UPDATE invocation SET state = 0 WHERE state = 2",
    "INSERT INTO tally SELECT function_id, count(*), sum(size) FROM invocation WHERE state < 3 GROUP BY function_id",
    "INSERT INTO tally SELECT 0, count(*), total(size) + (SELECT total(length(body) + length(r.log)) FROM result r"
    " JOIN invocation USING (key) WHERE state >= 3) + (SELECT total(length(log)) FROM attempt) FROM invocation"
    " WHERE state >= 3",
)
_WITH_FUNCTION = "function, function_version, async_settings, invocation, idempotency, owed, status_target, seen"
LAST_FUNCTION = " UNION ALL ".join(f"SELECT max(function_id) FROM {one}" for one in _WITH_FUNCTION.split(", "))
HELD = "SELECT DISTINCT function_id, ordering_key FROM invocation WHERE state = -1 AND ordering_key IS NOT NULL"
