"""Exit codes. A supervisor should start the engine again after RESTART; after USAGE someone has to change something."""

from __future__ import annotations

FAILED, USAGE, RESTART = 1, 2, 3
