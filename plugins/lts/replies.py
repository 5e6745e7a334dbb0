"""Replies of the log service's API, to successful and to refused requests."""

from __future__ import annotations

import msgspec

from engine import PushRequest, Reply
from plugins._shared.vendor_api import Table
from plugins.lts.problems import BAD_REQUEST, FOREIGN, LtsProblem


async def answered(table: Table, request: PushRequest) -> Reply:
    try:
        status, body = await table.answer(request, _refuse)
    except LtsProblem as problem:
        return _problem(problem)
    return Reply(status=status, body=b"" if body is None else msgspec.json.encode(body))


def _refuse(status: int, problem: str) -> LtsProblem:
    return LtsProblem(FOREIGN if status == 403 else BAD_REQUEST, problem, status)


def _problem(problem: LtsProblem) -> Reply:
    # The operations that accept lines use errorCode, all others error_code and error_msg.
    body = {"errorCode": problem.code, "error_code": problem.code, "error_msg": problem.message}
    return Reply(status=problem.status, body=msgspec.json.encode(body))
