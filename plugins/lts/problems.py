"""Refusals of LTS with the vendor's error codes."""

from __future__ import annotations

FOREIGN = "LTS.0003"
BAD_REQUEST = "LTS.0009"
GROUP_EXISTS = "LTS.0101"
TOO_MANY_GROUPS = "LTS.0104"
NO_GROUP = "LTS.0201"
STREAM_EXISTS = "LTS.0205"
TOO_MANY_STREAMS = "LTS.0206"
NO_STREAM = "LTS.0208"


class LtsProblem(Exception):
    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code} {message}")
