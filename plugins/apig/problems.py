"""Error replies of a gateway, with the error codes of the vendor's APIG."""

from __future__ import annotations

import msgspec

from engine import FunctiondError, HeaderPairs, NotFound, Reply, retry_after, status_of

#: Start of the message by status; ``API request error: `` for all others.
_STARTS = {
    413: "Request entity too large: ",
    429: "",
    502: "Backend unavailable: ",
    503: "Backend unavailable: ",
    504: "Backend timeout: ",
}


class Problem(Exception):
    """Error reply of a gateway. ``delay``: seconds by which it must be delayed."""

    def __init__(self, status: int, code: str, message: str, headers: HeaderPairs = (), *, delay: float = 0.0) -> None:
        self.status, self.code, self.message, self.headers, self.delay = status, code, message, headers, delay
        super().__init__(message)

    def reply(self, request_id: str) -> Reply:
        body = {"error_code": self.code, "error_msg": self.message, "request_id": request_id}
        return Reply(status=self.status, headers=self.headers, body=msgspec.json.encode(body))


def bad_reply(message: str) -> Problem:
    """Return the error reply for a function that ran, but did not return a valid reply (FunctionGraph: FSS.1202)."""
    return Problem(500, "FSS.1202", message)


def refused(error: FunctiondError) -> Problem:
    """Return the error reply for an error with which the engine refused a request or its event."""
    # The only status that differs from the API's: to the gateway's client, a missing function is a missing backend.
    status = 502 if isinstance(error, NotFound) else status_of(type(error))
    code = "APIG.0308" if status == 429 else "APIG.0201"
    return Problem(status, code, _STARTS.get(status, "API request error: ") + str(error), retry_after(error))
