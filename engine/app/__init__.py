"""Application: construction, lifecycle, process and embedding of the engine."""
