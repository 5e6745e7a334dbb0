-- Invocations of one function with the same ordering key run one at a time. A row whose predecessor has not ended has
-- the state -1 (held); ``begun`` tells of it whether it was accepted with a delay. ``ordering`` finds the other rows of a
-- key, ``held`` the held rows of a function.

ALTER TABLE invocation ADD COLUMN ordering_key TEXT;
CREATE INDEX ordering ON invocation (function_id, ordering_key, state) WHERE ordering_key IS NOT NULL AND state < 3;
CREATE INDEX held ON invocation (function_id, key) WHERE state = -1;
