"""Log lines for requests that are denied.

Lines about each credential are limited, and so are those about all anonymous clients together: either could fill the
log.
"""

from __future__ import annotations

import structlog

from engine.asgi.wire import Scope
from engine.auth.roles import Principal
from engine.model.clock import Clock

LINES = 30  #: lines in ``SPAN`` about one credential, or about all anonymous clients
SPAN = 60.0  #: seconds
PATH = 300  #: characters of a path that a line shows

log = structlog.get_logger("functiond.access")


def request_fields(scope: Scope) -> dict[str, str]:
    """Return the fields of a log line that describe a request."""
    client = scope["client"][0] if scope.get("client") else ""
    return {"method": scope["method"], "path": scope["path"][:PATH], "client": client}


class DenialLog:
    """Log of denied requests. At most ``LINES`` lines about a credential are written within ``SPAN`` seconds.

    Anonymous clients share as many. The first line after others were left out has their number as ``left_out``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: end of the span, lines in it and lines left out since the last one, by credential; empty: anonymous clients
        self._written: dict[str, tuple[float, int, int]] = {}

    def known(self, principal: Principal, scope: Scope, problem: str) -> None:
        """Log that an authenticated request is denied."""
        who = {"credential": principal.name, "role": principal.role, "project": principal.project}
        self._write(principal.name, "access denied", **who, **request_fields(scope), problem=problem)

    def anonymous(self, event: str, **fields: object) -> None:
        self._write("", event, **fields)

    def _write(self, name: str, event: str, **fields: object) -> None:
        now = self._clock.now()
        until, lines, left_out = self._written.get(name, (0.0, 0, 0))
        if not 0 < until - now <= SPAN:  # also if the clock was set back
            until, lines = now + SPAN, 0
        if lines >= LINES:
            self._written[name] = until, lines, left_out + 1
            return
        self._written[name] = until, lines + 1, 0
        log.warning(event, **fields, **({"left_out": left_out} if left_out else {}))
