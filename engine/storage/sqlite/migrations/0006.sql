-- Checksums of bodies, see ``checksums``; NULL: written before there were any, and not checked.
ALTER TABLE payload ADD COLUMN sum INTEGER;
ALTER TABLE result ADD COLUMN sum INTEGER;

-- Rows behind pages that cannot be read. Nothing changes these rows any more, and no window contains them.
CREATE TABLE damage (
    name     TEXT    NOT NULL,  -- of the table or index that the page belongs to
    from_key INTEGER NOT NULL,  -- first and last key of a range of rows; both 0: an index that is to be rebuilt
    to_key   INTEGER NOT NULL,
    noted_at REAL    NOT NULL,
    problem  TEXT    NOT NULL,
    PRIMARY KEY (name, from_key)
) WITHOUT ROWID;
