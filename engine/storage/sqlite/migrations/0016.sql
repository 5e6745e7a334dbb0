-- Calls: invocations that code queued, with the source CALL. Other invocations have no row here.
CREATE TABLE IF NOT EXISTS call (
    key     INTEGER PRIMARY KEY,
    parent  INTEGER,             -- invocation whose run queued it; NULL: none
    token   BLOB,                -- what the run queued, unique among its calls; NULL: the call has a key of its own
    depth   INTEGER NOT NULL,    -- number of runs that queued each other up to this call
    grp     INTEGER,             -- group that waits for its end
    place   INTEGER,             -- in this group
    only    BLOB,                -- function and event of a unique call
    expires REAL,                -- it is discarded if it waits then; NULL: never, or done
    sum     INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS call_token ON call (parent, token) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS call_place ON call (grp, place) WHERE grp IS NOT NULL;
CREATE INDEX IF NOT EXISTS call_only ON call (only) WHERE only IS NOT NULL;
CREATE INDEX IF NOT EXISTS call_expires ON call (expires) WHERE expires IS NOT NULL;

-- Groups, and steps of chains, which are groups of one call. The continuation of a group has its key, and is held.
-- state: 0 open, 1 decided, 2 cancelling (these two are work for the engine), 3 SUCCESS, 4 FAIL, 5 CANCELLED, 6 ABANDONED
CREATE TABLE IF NOT EXISTS call_group (
    key       INTEGER PRIMARY KEY,
    project   TEXT    NOT NULL,
    token     TEXT,                -- key by which its creation is repeated; NULL: none
    kind      INTEGER NOT NULL,    -- 0 group, 1 step of a chain: its continuation gets the result, 2 no continuation
    need_all  INTEGER NOT NULL,    -- 1: the first failure decides
    created   REAL    NOT NULL,
    total     INTEGER,             -- NULL until it is sealed
    stored    INTEGER NOT NULL,    -- members
    done      INTEGER NOT NULL DEFAULT 0,  -- of them ended
    failed    INTEGER NOT NULL DEFAULT 0,  -- of them not with SUCCESS
    state     INTEGER NOT NULL DEFAULT 0,
    ended     REAL,
    message   TEXT    NOT NULL DEFAULT '',
    sum       INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS call_group_token ON call_group (project, token) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS call_group_alone ON call_group (ended) WHERE kind = 2;
CREATE INDEX IF NOT EXISTS call_group_work ON call_group (state) WHERE state IN (1, 2);
CREATE INDEX IF NOT EXISTS call_group_unsealed ON call_group (created) WHERE total IS NULL AND state = 0;
