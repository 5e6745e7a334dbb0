-- Crashes before a handler began are counted apart, because they rarely are the fault of the invocation.
-- Of a running row, ``begun`` tells whether the handler of its attempt has begun. Other rows ignore it.

ALTER TABLE invocation ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invocation ADD COLUMN start_deaths INTEGER NOT NULL DEFAULT 0;
UPDATE invocation SET begun = 1 WHERE state = 2;  -- as earlier versions counted them
