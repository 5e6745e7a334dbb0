-- Of an attempt: its log if another attempt followed (the table ``result`` has the log of the last one), what was decided
-- after it, and the progress that its handler reported last. NULL: none.

ALTER TABLE attempt ADD COLUMN log BLOB;
ALTER TABLE attempt ADD COLUMN decision TEXT;
ALTER TABLE attempt ADD COLUMN progress REAL;
ALTER TABLE attempt ADD COLUMN note TEXT;
