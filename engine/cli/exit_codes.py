"""Exit codes of the commands.

RESTART: a supervisor should restart the engine. USAGE: correct the command line or the settings first.
"""

from __future__ import annotations

FAILED, USAGE, RESTART = 1, 2, 3
