-- Cursors of trigger sources, and the tables of plugins.

CREATE TABLE cursor (
    trigger_id TEXT NOT NULL,
    name       TEXT NOT NULL,  -- a partition, or whatever the source calls it
    position   BLOB NOT NULL,
    PRIMARY KEY (trigger_id, name)
) WITHOUT ROWID;
-- Cursors are deleted in the transaction that deletes their trigger. (REPLACE does not fire this SQL trigger.)
CREATE TRIGGER cursors_go_with_their_trigger AFTER DELETE ON resource WHEN OLD.kind = 'trigger'
BEGIN
    DELETE FROM cursor WHERE trigger_id = OLD.id;
END;

CREATE TABLE plugin_row (
    plugin TEXT NOT NULL,
    name   TEXT NOT NULL,      -- of the plugin's table
    key    TEXT NOT NULL,
    value  BLOB NOT NULL,
    PRIMARY KEY (plugin, name, key)
) WITHOUT ROWID;
