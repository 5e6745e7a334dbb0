-- The hot row is small; payload and result have their own tables. Indexes are partial: a second full index would cost
-- a third of the insert rate.
-- state: 0 ready, 1 delayed, 2 running, 3 SUCCESS, 4 FAIL, 5 DISCARD (0 and 1 are the API's WAIT).

CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE invocation (
    key         INTEGER PRIMARY KEY,  -- see engine/identity.py
    function_id INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    alias       TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    state       INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    rank        REAL    NOT NULL,     -- order within a function, then key
    first_due   REAL    NOT NULL,     -- age counts from here
    due         REAL    NOT NULL,
    attempt     INTEGER NOT NULL,     -- the next or present one, from 1
    failures    INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    hops        INTEGER NOT NULL,
    memory      INTEGER NOT NULL,
    size        INTEGER NOT NULL,     -- bytes of payload
    started     REAL,
    ended       REAL,
    code        INTEGER NOT NULL DEFAULT 0,
    message     TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX ready ON invocation (function_id, rank) WHERE state = 0;
CREATE INDEX delayed ON invocation (due) WHERE state = 1;
CREATE INDEX running ON invocation (function_id) WHERE state = 2;
CREATE INDEX finished ON invocation (function_id, key) WHERE state >= 3;

CREATE TABLE payload (key INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE result (key INTEGER PRIMARY KEY, body BLOB NOT NULL, log BLOB NOT NULL);

-- Attempts, except those that succeeded as the first.
CREATE TABLE attempt (
    key     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started REAL    NOT NULL,
    ended   REAL    NOT NULL,
    code    INTEGER NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (key, attempt)
) WITHOUT ROWID;

CREATE TABLE owed (
    owed_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    key         INTEGER NOT NULL,
    function_id INTEGER NOT NULL,
    condition   TEXT    NOT NULL,
    destination TEXT    NOT NULL,
    param       TEXT    NOT NULL,
    due         REAL,                 -- NULL: given up, kept to be seen
    tries       INTEGER NOT NULL DEFAULT 0,
    error       TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX owed_due ON owed (due) WHERE due IS NOT NULL;
CREATE INDEX owed_key ON owed (key);

CREATE TABLE idempotency (
    function_id INTEGER NOT NULL,
    token       TEXT    NOT NULL,
    key         INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    expires     REAL    NOT NULL,
    PRIMARY KEY (function_id, token)
) WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires);

-- Rows and bytes not yet ended, by function, updated in the same transactions; function 0: ended rows of all functions.
CREATE TABLE tally (function_id INTEGER PRIMARY KEY, rows INTEGER NOT NULL, size INTEGER NOT NULL);

CREATE TABLE function (
    function_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused
    project     TEXT NOT NULL,
    package     TEXT NOT NULL,
    name        TEXT NOT NULL
);
CREATE TABLE function_version (
    function_id INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    body        BLOB    NOT NULL,     -- engine.model.Function as JSON
    PRIMARY KEY (function_id, version)
) WITHOUT ROWID;
CREATE TABLE async_settings (
    function_id INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    body        BLOB    NOT NULL,     -- engine.model.AsyncSettings as JSON
    PRIMARY KEY (function_id, version)
) WITHOUT ROWID;
