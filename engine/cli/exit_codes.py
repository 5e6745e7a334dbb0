"""Exit codes of the commands.

FAILED: the command, or the function that it called, failed. RESTART: a supervisor should restart the engine.
USAGE: the command line, the settings or the data directory must be corrected first. WOULD_CHANGE: a plan has changes.
"""

from __future__ import annotations

FAILED, USAGE, RESTART, WOULD_CHANGE = 1, 2, 3, 4
