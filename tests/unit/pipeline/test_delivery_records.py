"""Delivery records: errors of functions, and none of successes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.code.store import CodeStore
from engine.functions.catalog import Catalog
from engine.model import Record, State
from engine.model.clock import SystemClock
from engine.pipeline.delivery_records import DeliveryRecords
from tests.doubles import MemoryStorage

NOT_KEPT = "the result has 300000 bytes, more than 262144, and is not kept"


@pytest.mark.parametrize(
    ("state", "message", "damaged", "error"),
    [
        (State.SUCCESS, NOT_KEPT, frozenset[str](), ""),
        (State.SUCCESS, "", frozenset({"result"}), "the result is damaged on disk and left out"),
        (State.FAIL, "ValueError: no", frozenset({"result"}), "ValueError: no"),
    ],
)
def test_only_failures_and_damage_are_errors(
    tmp_path: Path, state: State, message: str, damaged: frozenset[str], error: str
) -> None:
    catalog = Catalog(MemoryStorage().catalog, CodeStore(tmp_path), SystemClock(), region="here")
    record = Record(
        key=1,
        request_id="r",
        function_id=1,
        version="latest",
        alias="",
        source="API",
        state=state,
        priority=0,
        due_at=1.0,
        message=message,
        damaged=damaged,
    )

    assert json.loads(DeliveryRecords(catalog, "here").encode(record))["response_context"]["function_error"] == error
