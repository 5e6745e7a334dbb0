-- Due deliveries are found by destination, so that a long backlog of one destination does not hide those of others.

CREATE INDEX owed_destination ON owed (destination, param, due) WHERE due IS NOT NULL;
