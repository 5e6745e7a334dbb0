-- Origin of an invocation: the trigger that made its request, or the key of the invocation whose outcome is its event, or
-- which it repeats. NULL: none. ``caused`` finds the invocations that another one caused.
ALTER TABLE invocation ADD COLUMN trigger_id TEXT;
ALTER TABLE invocation ADD COLUMN cause INTEGER;
CREATE INDEX caused ON invocation (cause) WHERE cause IS NOT NULL;

-- Id of the instance that ran an attempt. NULL: unknown, or none ran it.
ALTER TABLE attempt ADD COLUMN instance TEXT;
