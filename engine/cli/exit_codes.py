"""Exit codes. Supervisors should restart the engine after RESTART. USAGE requires a change of configuration first."""

from __future__ import annotations

FAILED, USAGE, RESTART = 1, 2, 3
