"""Application: construction of the engine's components, their start and stop, and use in another program."""
