-- From here on, secrets of functions and triggers are encrypted, see ``encryption``. The engine's start encrypts those of
-- earlier engines, which would take encrypted ones for missing.
-- Free pages may have plain ones of functions that are gone: the start rewrites a journal that an engine has used.
INSERT OR REPLACE INTO meta SELECT 'plain', 1 FROM meta WHERE name = 'node';
