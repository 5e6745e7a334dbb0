"""Operations that control a function, as rows of the table of all operations."""

from __future__ import annotations

from engine.http.api.bulk_cancel import CancelInvocationsBody, CancelledInvocations
from engine.http.api.controls import ControlsBody, PauseBody
from engine.http.api.explanation import ExplanationReply
from engine.http.api.routing import BASE
from engine.http.api.run_again import RunAgainBody, RunAgainReply
from engine.model.controls import Controls
from engine.protocols import Operation

_ONE = f"{BASE}/functions/{{function_urn}}"
_CONTROLS = f"{_ONE}/controls"

CONTROL_OPERATIONS = (
    Operation(name="ShowFunctionControls", method="GET", path=_CONTROLS, reply=Controls, own=True, roles=("read",)),
    Operation(
        name="UpdateFunctionControls", method="PATCH", path=_CONTROLS, body=ControlsBody, reply=Controls, own=True
    ),
    Operation(
        name="PauseFunction",
        method="POST",
        path=f"{_ONE}/pause",
        body=PauseBody,
        optional=True,
        reply=Controls,
        own=True,
    ),
    Operation(name="ResumeFunction", method="POST", path=f"{_ONE}/resume", reply=Controls, own=True),
    Operation(
        name="CancelAsyncInvocations",
        method="POST",
        path=f"{_ONE}/async-invocations/cancel",
        body=CancelInvocationsBody,
        optional=True,
        reply=CancelledInvocations,
        own=True,
    ),
    Operation(
        name="ExplainAsyncInvocation",
        method="GET",
        path=f"{_ONE}/async-invocations/{{request_id}}/explain",
        reply=ExplanationReply,
        own=True,
        roles=("invoke", "read"),
    ),
    Operation(
        name="RunAsyncInvocationAgain",
        method="POST",
        path=f"{_ONE}/async-invocations/{{request_id}}/run-again",
        body=RunAgainBody,
        optional=True,
        reply=RunAgainReply,
        status=202,
        headers=("Idempotency-Key",),
        own=True,
    ),
)
