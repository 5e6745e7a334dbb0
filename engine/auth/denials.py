"""Log lines for requests that are denied.

Lines about authenticated callers are all written. Lines about anonymous clients are limited, because anyone can cause
them.
"""

from __future__ import annotations

import structlog

from engine.asgi.wire import Scope
from engine.auth.roles import Principal
from engine.model.clock import Clock

LINES = 30  #: lines about anonymous clients in ``SPAN``
SPAN = 60.0  #: seconds
PATH = 300  #: characters of a path that a line shows

log = structlog.get_logger("functiond.access")


def request_fields(scope: Scope) -> dict[str, str]:
    """Return the fields of a log line that describe a request."""
    client = scope["client"][0] if scope.get("client") else ""
    return {"method": scope["method"], "path": scope["path"][:PATH], "client": client}


class DenialLog:
    """Log of denied requests. At most ``LINES`` lines about anonymous clients are written within ``SPAN`` seconds.

    The first line after others were left out has their number as ``left_out``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until, self._lines, self._left_out = 0.0, 0, 0

    def known(self, principal: Principal, scope: Scope, problem: str) -> None:
        """Log that an authenticated request is denied."""
        who = {"credential": principal.name, "role": principal.role, "project": principal.project}
        log.warning("access denied", **who, **request_fields(scope), problem=problem)

    def anonymous(self, event: str, **fields: object) -> None:
        now = self._clock.now()
        if not 0 < self._until - now <= SPAN:  # also if the clock was set back
            self._until, self._lines = now + SPAN, 0
        if self._lines >= LINES:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        log.warning(event, **fields, **({"left_out": left_out} if left_out else {}))
