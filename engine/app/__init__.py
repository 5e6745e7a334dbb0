"""Application: construction of an engine, its start and stop, its process, and its use in another program."""
