-- Checksums of rows, see ``checksums``; NULL: written before there were any, or by hand, and not checked.
ALTER TABLE invocation ADD COLUMN sum INTEGER;
ALTER TABLE attempt ADD COLUMN sum INTEGER;
ALTER TABLE owed ADD COLUMN sum INTEGER;
ALTER TABLE idempotency ADD COLUMN sum INTEGER;
ALTER TABLE function ADD COLUMN sum INTEGER;
ALTER TABLE function_version ADD COLUMN sum INTEGER;
ALTER TABLE async_settings ADD COLUMN sum INTEGER;
ALTER TABLE resource ADD COLUMN sum INTEGER;
ALTER TABLE cursor ADD COLUMN sum INTEGER;
ALTER TABLE plugin_row ADD COLUMN sum INTEGER;
-- In place of checksums, a second copy of the values.
CREATE INDEX meta_copy ON meta (value);
CREATE INDEX status_target_copy ON status_target (enabled);
CREATE INDEX status_log_copy ON status_log (at, target_id, state, code, message, key);
