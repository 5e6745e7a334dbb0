"""Invocations and deliveries in every state, from runs of an engine that differ in the delay of retries.

Retries of ``end_work`` take no time, those of ``leave_for_long`` an hour, and those of ``leave_unended`` 20 s. The next
engine therefore finds retries that are due and retries that are not.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import Any

from tests.acceptance.engine_process import PROJECT, EngineProcess, rows, until, urn_of
from tests.acceptance.upgrade.archive import Unended
from tests.acceptance.upgrade.replies import FGS, OTHER, call, function, invocations, limit

KEY = "a key of the caller"
ONCE = {"once": True}
LARGE = {"X_Cff_Instance_Memory": "512"}
#: Fields of records that stay the same from acceptance on.
FIXED = ("request_id", "function_urn", "alias", "source", "priority", "accept_time", "payload")


def end_work(engine: EngineProcess) -> None:
    """Let invocations end in all ways."""
    raw = '{"text": "é 🎈"}'.encode()
    ids = {send(engine, "echo", raw, X_Functiond_Priority=str(n)): "echo" for n in range(3)}
    ids |= {send(engine, f"echo:{part}", {"n": part}): "echo" for part in ("v1", "!live", "!canary")}
    ids[send(engine, "echo", ONCE, Idempotency_Key=KEY)] = "echo"
    ids |= {send(engine, name, {"n": 1}): name for name in ("speaks", "fails", "flaky", "zipped", "gone")}
    ids |= {_cancelled(engine): "echo", _discarded(engine): "aged"}
    for request_id, name in ids.items():
        engine.record(name, request_id, wait=30)
    call(engine, "DELETE", function("gone").removesuffix(":latest"))
    for n in range(5):
        call(engine, "POST", function("elsewhere").replace(PROJECT, OTHER) + "/invocations", {"n": n})


def _cancelled(engine: EngineProcess) -> str:
    request_id = send(engine, "echo", {"n": "cancelled"}, X_Functiond_Delay="600")
    assert engine.cancel("echo", request_id).status == 200
    return request_id


def _discarded(engine: EngineProcess) -> str:
    """Discard an invocation that has waited for a disabled function beyond its maximum age of 1 s."""
    request_id = send(engine, "aged", {"n": 1}, X_Functiond_Delay="0.5")
    limit(engine, "aged", 0)
    sleep(2)
    limit(engine, "aged", 1)
    return request_id


def leave_for_long(engine: EngineProcess) -> None:
    """Leave a retry and deliveries that are due later. Destinations of "reports" and "strays" are missing."""
    for name in ("hopeless", "reports", "strays"):
        send(engine, name, {"n": 2})
    until(lambda: len([delivery for delivery in deliveries(engine) if delivery["next_try"] and delivery["tries"]]) == 2)
    until(lambda: [invocation for invocation in invocations(engine, "hopeless") if invocation["attempts"]])


def leave_ordered(engine: EngineProcess) -> None:
    """Leave a paused function with a rate, and three invocations of one ordering key: two are held."""
    controls = {"paused": True, "pause_reason": "the bucket moves", "rate": 5, "burst": 10}
    call(engine, "PATCH", f"{function('ordered')}/controls", controls)
    for n in range(3):
        send(engine, "ordered", {"n": n}, X_Functiond_Ordering_Key="customer-17")


def crash_twice(engine: EngineProcess) -> None:
    """Kill the engine twice while an invocation runs."""
    send(engine, "crashes", {})
    _kill_while_running(engine)
    engine.start()
    _kill_while_running(engine)


def _kill_while_running(engine: EngineProcess) -> None:
    until(lambda: (1,) in rows(engine.data, "SELECT begun FROM invocation WHERE state = 2"))
    engine.kill(children=True)


def leave_unended(engine: EngineProcess, folder: Path) -> dict[str, Unended]:
    """Leave invocations that run (as long as ``folder`` exists), wait, are delayed or will be retried.

    Return them by request id.
    """
    success: dict[str, Any] = {"status": "SUCCESS"}
    retried = send(engine, "fails", {"n": 3})
    stored = send(engine, "stored", {"n": 4})
    running, queued = (send(engine, "sleeps", {"folder": str(folder), "n": n}) for n in range(2))
    delayed = send(engine, "echo:!live", {}, X_Functiond_Delay="30", X_Functiond_Priority="3", **LARGE)
    too_old = send(engine, "aged", {"n": 2}, X_Functiond_Delay="30")
    held = [send(engine, "held", {"n": n}, X_Functiond_Delay="1", X_Functiond_Priority=str(n)) for n in range(3)]
    limit(engine, "held", 0)
    until(lambda: [invocation["status"] for invocation in invocations(engine, "crashes")] == ["RUNNING"])
    limit(engine, "crashes", 0)  # keeps the next engine from running it at once
    until(lambda: engine.record("fails", retried)["attempts"])
    until(lambda: engine.record("sleeps", running)["status"] == "RUNNING")
    until(
        lambda: [delivery for delivery in deliveries(engine) if delivery["request_id"] == stored and delivery["tries"]]
    )
    sleep(1)  # until those of "held" are due
    ends: dict[str, tuple[str, dict[str, Any]]] = {
        retried: ("fails", {"status": "FAIL", "error_code": 4002, "attempt": 2}),
        running: ("sleeps", {**success, "result": "awake"}),
        queued: ("sleeps", {**success, "result": "awake"}),
        delayed: ("echo", success),
        too_old: ("aged", {"status": "DISCARD", "error_code": 150430}),
        **dict.fromkeys(held, ("held", success)),
    }
    return {
        request_id: Unended(function=name, record=engine.record(name, request_id), end=end)
        for request_id, (name, end) in ends.items()
    }


def deliveries(engine: EngineProcess) -> list[dict[str, Any]]:
    """Return all deliveries: those given up, then those that are pending."""
    listed = call(engine, "GET", f"{FGS}/deliveries")
    return [*listed["deliveries"], *listed["retrying"]]


def send(engine: EngineProcess, name: str, event: object, **headers: str) -> str:
    """Invoke asynchronously, and return the request id. The name may end with a version or an alias."""
    short, _, qualifier = name.partition(":")
    urn = urn_of(short).replace("latest", qualifier or "latest")
    path = f"{FGS}/functions/{urn}/invocations-async"
    request_id: str = call(engine, "POST", path, event, **headers)["request_id"]
    return request_id
