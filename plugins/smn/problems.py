"""Refusals of requests to SMN: HTTP status and the vendor's error code."""

from __future__ import annotations


class SmnProblem(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{code} {message}")


def bad_request(message: str, code: str = "SMN.0005") -> SmnProblem:
    return SmnProblem(400, code, message)


def no_topic(urn: str) -> SmnProblem:
    return SmnProblem(404, "SMN.0006", f"Topic not found. [{urn[:300]}]")
