-- A delivery that was given up can be redriven; its age then counts from ``since``.

ALTER TABLE owed ADD COLUMN since REAL NOT NULL DEFAULT 0;
CREATE INDEX owed_given_up ON owed (function_id, owed_id) WHERE due IS NULL;
