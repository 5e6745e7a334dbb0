"""Vendor's SDK with triggers as stored resources, on an engine process."""

from __future__ import annotations

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, ClientRequestException, Platform, ask, create, fg, refused, urn_of
from tests.acceptance.triggering import GOOD, add, delete, listed, show, update

pytestmark = SDK_WARNINGS


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_trigger_of_every_kind_is_created_shown_and_deleted(platform: Platform, function: str, kind: str) -> None:
    trigger = add(platform, function, kind, GOOD[kind])

    assert trigger.status_code == 201
    shown, enabled = show(platform, function, trigger), update(platform, function, trigger, status="ACTIVE")
    delete(platform, function, trigger)
    with pytest.raises(ClientRequestException) as missing:
        show(platform, function, trigger)
    assert (enabled.trigger_status, missing.value.status_code) == ("ACTIVE", 404)
    assert (shown.trigger_id, shown.trigger_type_code) == (trigger.trigger_id, kind)
    assert shown.trigger_status == ("DISABLED" if kind in ("DDS", "KAFKA", "OPENSOURCEKAFKA") else "ACTIVE")
    assert listed(platform, function) == []


@pytest.mark.parametrize("kind", ["APIG", "DEDICATEDGATEWAY", "APIC"])
def test_the_mode_of_gateways_is_synchronous_until_it_is_changed(platform: Platform, function: str, kind: str) -> None:
    trigger = add(platform, function, kind, GOOD[kind])
    assert trigger.event_data.func_info.invocation_type == "sync"

    update(platform, function, trigger, [{"func_info": {"invocation_type": "async"}}])

    shown = show(platform, function, trigger).event_data.func_info
    delete(platform, function, trigger)
    assert (shown.invocation_type, shown.timeout, shown.version) == ("async", 5000, "latest")
    assert shown.function_urn == urn_of(function)


def test_an_update_is_merged_as_the_sdk_sends_it(platform: Platform, function: str) -> None:
    trigger = add(platform, function, "DIS", GOOD["DIS"])
    data = fg.UpdateriggerEventData(is_serial=False, max_fetch_bytes=4096, polling_interval=500, polling_unit="ms")

    changed = update(platform, function, trigger, [data]).event_data

    delete(platform, function, trigger)
    assert (changed.is_serial, changed.max_fetch_bytes, changed.polling_interval) == ("false", 4096, 500)
    assert (changed.stream_name, changed.batch_size) == ("clicks", 100)


def test_what_was_created_fixed_stays_so(platform: Platform, function: str) -> None:
    trigger = add(platform, function, "OBS", GOOD["OBS"])

    with refused(400, "FSS.1106"):
        update(platform, function, trigger, [{"bucket": "other"}])

    assert update(platform, function, trigger, [{"prefix": "new/"}]).event_data.prefix == "new/"
    delete(platform, function, trigger)


def test_a_batch_is_deleted_from_a_version_or_from_all(platform: Platform) -> None:
    create(platform, "batch")
    ask(platform, "CreateFunctionVersion", "batch", version="v1")
    latest, version = urn_of("batch"), urn_of("batch", ":v1")
    for urn in (latest, version):
        for name in ("a", "b"):
            add(platform, urn, "TIMER", {**GOOD["TIMER"], "name": name})

    assert ask(platform, "BatchDeleteFunctionTriggers", version).status_code == 204
    assert (len(listed(platform, latest)), len(listed(platform, version))) == (2, 0)
    add(platform, version, "TIMER", GOOD["TIMER"])
    ask(platform, "BatchDeleteFunctionTriggers", urn_of("batch", ""))
    assert listed(platform, latest) == listed(platform, version) == []
