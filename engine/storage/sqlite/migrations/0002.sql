-- Resources of functions and projects besides versions and settings: aliases, triggers, test events, dependencies,
-- tags. Small; read at start and looked up in memory.

CREATE TABLE resource (
    kind  TEXT NOT NULL,  -- alias, trigger, event, ...
    owner TEXT NOT NULL,  -- "function:<function_id>" or "project:<project>"
    id    TEXT NOT NULL,
    body  BLOB NOT NULL,  -- the kind's struct as JSON
    PRIMARY KEY (kind, owner, id)
) WITHOUT ROWID;
CREATE INDEX resource_owner ON resource (owner);
