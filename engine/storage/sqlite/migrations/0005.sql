-- Each destination has a line of its own, so that the next of all can be found however many one of them is owed.

CREATE INDEX owed_destination ON owed (destination, param, due) WHERE due IS NOT NULL;
