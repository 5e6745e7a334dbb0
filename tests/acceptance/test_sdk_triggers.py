"""Vendor's SDK with triggers as stored resources, on an engine process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, Platform, create, fg, refused, urn_of
from tests.acceptance.triggering import GOOD, add, alias, batch_delete, delete, listed, publish, show, update

pytestmark = SDK_WARNINGS


ASYNCHRONOUS = ("SMN", "OBS", "DIS", "TIMER", "LTS", "CTS", "DDS", "KAFKA")


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_trigger_of_every_kind_is_created_shown_and_deleted(platform: Platform, function: str, kind: str) -> None:
    trigger = add(platform, function, kind, GOOD[kind])

    assert trigger.status_code == 201
    shown = show(platform, function, trigger)
    delete(platform, function, trigger)
    assert (shown.trigger_id, shown.trigger_type_code) == (trigger.trigger_id, kind)
    assert shown.trigger_status == ("DISABLED" if kind in ("DDS", "KAFKA", "OPENSOURCEKAFKA") else "ACTIVE")
    assert listed(platform, function) == []


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_only_some_kinds_can_be_disabled(platform: Platform, function: str, kind: str) -> None:
    trigger = add(platform, function, kind, GOOD[kind])
    may = kind in ("TIMER", "DDS", "DMS", "KAFKA", "LTS", "OPENSOURCEKAFKA")

    try:
        if may:
            assert update(platform, function, trigger, status="DISABLED").trigger_status == "DISABLED"
            assert update(platform, function, trigger, status="ACTIVE").trigger_status == "ACTIVE"
        else:
            with pytest.raises(Exception, match="cannot be disabled"):
                update(platform, function, trigger, status="DISABLED")
        assert show(platform, function, trigger).trigger_status == "ACTIVE"
    finally:
        delete(platform, function, trigger)


def test_a_trigger_may_be_created_disabled(platform: Platform, function: str) -> None:
    trigger = add(platform, function, "TIMER", GOOD["TIMER"], "DISABLED")

    assert trigger.trigger_status == "DISABLED"
    delete(platform, function, trigger)
    with refused(400, "FSS.1102"):
        add(platform, function, "SMN", GOOD["SMN"], "DISABLED")
    with refused(400, "FSS.1109"):
        add(platform, function, "TIMER", GOOD["TIMER"], "PAUSED")


@pytest.mark.parametrize("kind", ASYNCHRONOUS)
def test_the_mode_of_asynchronous_triggers_cannot_be_changed(platform: Platform, function: str, kind: str) -> None:
    trigger = add(platform, function, kind, {**GOOD[kind], "func_info": {"invocation_type": "async"}})
    asks: list[dict[str, Any]] = [{"func_info": {"invocation_type": "sync"}}, {"invocation_type": "sync"}]
    if kind == "TIMER":
        asks.append({"sync_execution": True})

    for ask in asks:
        with pytest.raises(Exception, match="invocation mode cannot be changed"):
            update(platform, function, trigger, [ask])
        with pytest.raises(Exception, match="invocation mode cannot be changed"):
            add(platform, function, kind, {**GOOD[kind], **ask})

    delete(platform, function, trigger)


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


@pytest.mark.parametrize(
    ("kind", "field"), [("DDS", "db_password"), ("KAFKA", "kafka_password"), ("RABBITMQ", "access_password")]
)
def test_passwords_are_shown_to_nobody(platform: Platform, function: str, kind: str, field: str) -> None:
    data = {**GOOD[kind], field: "very secret", "kafka_user": "u"}

    trigger = add(platform, function, kind, data)

    replies = [trigger, show(platform, function, trigger), update(platform, function, trigger, [{"batch_size": 5}])]
    delete(platform, function, trigger)
    assert [getattr(reply.event_data, field) for reply in replies] == ["******"] * 3
    assert "very secret" not in str(replies)


def test_triggers_belong_to_a_version_or_an_alias(platform: Platform) -> None:
    create(platform, "versioned")
    publish(platform, "versioned", "v1")
    alias(platform, "versioned", "live", "v1")
    urns = [urn_of("versioned", end) for end in (":latest", ":v1", ":!live")]
    triggers = [add(platform, urn, "TIMER", GOOD["TIMER"]).trigger_id for urn in urns]

    assert [listed(platform, urn) for urn in urns] == [[trigger] for trigger in triggers]
    with refused(404, "FSS.1140"):
        show(platform, urns[0], ("TIMER", triggers[1]))
    with refused(404, "FSS.1052"):
        add(platform, urn_of("versioned", ":v2"), "TIMER", GOOD["TIMER"])
    with refused(404, "FSS.1053"):
        add(platform, urn_of("versioned", ":!dead"), "TIMER", GOOD["TIMER"])


def test_a_batch_is_deleted_from_a_version_or_from_all(platform: Platform) -> None:
    create(platform, "batch")
    publish(platform, "batch", "v1")
    latest, version = urn_of("batch"), urn_of("batch", ":v1")
    for urn in (latest, version):
        for name in ("a", "b"):
            add(platform, urn, "TIMER", {**GOOD["TIMER"], "name": name})

    assert batch_delete(platform, version).status_code == 204
    assert (len(listed(platform, latest)), len(listed(platform, version))) == (2, 0)
    add(platform, version, "TIMER", GOOD["TIMER"])
    batch_delete(platform, urn_of("batch", ""))
    assert listed(platform, latest) == listed(platform, version) == []


def test_an_alias_with_triggers_cannot_be_deleted(platform: Platform) -> None:
    create(platform, "aliased")
    publish(platform, "aliased", "v1")
    alias(platform, "aliased", "live", "v1")
    urn = urn_of("aliased", ":!live")
    trigger = add(platform, urn, "TIMER", GOOD["TIMER"])
    request = fg.DeleteVersionAliasRequest(function_urn=urn_of("aliased"), alias_name="live")

    with refused(403, "FSS.1154"):
        platform.client.delete_version_alias(request)

    delete(platform, urn, trigger)
    assert platform.client.delete_version_alias(request).status_code == 204
