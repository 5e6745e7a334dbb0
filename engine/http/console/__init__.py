"""The web console: pages that show what the engine does, for people, and change nothing."""
