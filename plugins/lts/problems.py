"""Refusals of LTS with the vendor's error codes."""

from __future__ import annotations

import msgspec

from engine import Reply
from plugins._shared.vendor_api import VendorProblem

FOREIGN = "LTS.0003"
BAD_REQUEST = "LTS.0009"
GROUP_EXISTS = "LTS.0101"
TOO_MANY_GROUPS = "LTS.0104"
NO_GROUP = "LTS.0201"
STREAM_EXISTS = "LTS.0205"
TOO_MANY_STREAMS = "LTS.0206"
NO_STREAM = "LTS.0208"


class LtsProblem(VendorProblem):
    def reply(self) -> Reply:
        # The operations that accept lines use errorCode, all others error_code and error_msg.
        body = {"errorCode": self.code, "error_code": self.code, "error_msg": self.message}
        return Reply(status=self.status, body=msgspec.json.encode(body))


def not_offered(status: int, problem: str) -> LtsProblem:
    return LtsProblem(FOREIGN if status == 403 else BAD_REQUEST, problem, status)
