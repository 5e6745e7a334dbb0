-- Ended rows of each function, under its negative id, by which the project with most is found. Their bytes are estimates
-- here, because counting them would read all rows.
INSERT INTO tally SELECT -function_id, count(*), count(*) * (SELECT size / max(1, rows) FROM tally WHERE function_id = 0)
FROM invocation WHERE state >= 3 GROUP BY function_id;
