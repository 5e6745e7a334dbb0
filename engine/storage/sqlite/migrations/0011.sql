-- Versions of functions whose states are logged, each with the log stream for them. Other versions cost nothing.
CREATE TABLE status_target (
    target_id   INTEGER PRIMARY KEY,
    function_id INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    enabled     INTEGER NOT NULL,  -- 0: kept only for the entries that are not in the stream yet
    body        TEXT    NOT NULL,  -- engine.protocols.StatusTarget as JSON
    UNIQUE (function_id, version, body)
);

-- Changes of states that are not in their log stream yet, in their order. Handed on from the oldest.
CREATE TABLE status_log (
    entry_id  INTEGER PRIMARY KEY,
    target_id INTEGER NOT NULL,
    state     INTEGER NOT NULL,  -- as in ``invocation``
    at        REAL    NOT NULL,
    code      INTEGER NOT NULL,
    message   TEXT    NOT NULL,
    key       INTEGER NOT NULL
);
