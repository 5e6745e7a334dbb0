"""Refusals of DIS with the vendor's error codes, from streams of the engine itself or of a remote endpoint."""

from __future__ import annotations

import msgspec

from engine import Reply
from plugins._shared.vendor_api import VendorProblem

OUT_OF_RANGE = "DIS.4224"  #: a sequence number that does not exist, or has expired
EXPIRED_CURSOR = "DIS.4225"
BAD_REQUEST = "DIS.4300"
NO_STREAM = "DIS.4301"
NO_PARTITION = "DIS.4302"
TOO_FAST = "DIS.4303"
STREAM_EXISTS = "DIS.4307"
APP_EXISTS = "DIS.4330"
NO_APP = "DIS.4332"


class DisProblem(VendorProblem):
    def reply(self) -> Reply:
        # errorCode and message are documented; the vendor's SDK reads error_code and error_msg instead.
        documented = {"errorCode": self.code, "message": self.message}
        body = msgspec.json.encode({**documented, "error_code": self.code, "error_msg": self.message})
        return Reply(status=self.status, body=body)


def no_stream(name: str, project: str) -> DisProblem:
    return DisProblem(NO_STREAM, f"Stream does not exist. [{name}][{project}]")
