"""Settings of the engine, read and validated; registry of plugins by the kinds of trigger and destination."""
