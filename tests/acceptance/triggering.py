"""Triggers through the vendor's SDK: one valid configuration of each kind, and calls to create and read it."""

from __future__ import annotations

from typing import Any

from tests.acceptance.sdk import PROJECT, REGION, Platform, ask
from tests.support.gateways import API

DDS = {"instance_id": "i", "db_name": "d", "collection_name": "c", "db_password": "secret", "batch_size": 10}
APIG = {**API, "path": "/orders/{id}", "protocol": "HTTPS", "req_method": "GET", "func_info": {"timeout": 5000}}
DIS = {
    "stream_name": "clicks",
    "sharditerator_type": "LATEST",
    "polling_interval": 30,
    "polling_unit": "s",
    "is_serial": "true",
    "batch_size": 100,
}
KAFKA = {"instance_id": "i", "topic_ids": ["orders"], "batch_size": 10}
RABBIT = {"instance_id": "i", "exchange_name": "x", "access_password": "secret", "batch_size": 1}
GRID = {"channel_id": "c", "channel_name": "n", "source_name": "s", "trigger_name": "t", "event_types": ["a"]}
#: Valid configuration of each kind.
GOOD: dict[str, dict[str, Any]] = {
    "TIMER": {"name": "nightly", "schedule_type": "Cron", "schedule": "0 0 3 * * *", "user_event": "x"},
    "APIG": APIG,
    "DEDICATEDGATEWAY": {**APIG, "instance_id": "gateway"},
    "APIC": {**APIG, "path": "/roma"},
    "CTS": {"name": "audit", "operations": ["ECS:ecs;disk:start;stop"]},
    "DDS": DDS,
    "GAUSSMONGO": DDS,
    "DMS": {"queue_id": "q", "consumer_group_id": "g", "polling_interval": 30},
    "DIS": DIS,
    "LTS": {"log_group_id": "g", "log_topic_id": "t"},
    "OBS": {"bucket": "photos", "events": ["s3:ObjectCreated:*"], "prefix": "in/"},
    "SMN": {"topic_urn": f"urn:smn:{REGION}:{PROJECT}:orders"},
    "KAFKA": KAFKA,
    "OPENSOURCEKAFKA": {"kafka_connect_address": "a:9092,b:9092", "topic_ids": ["orders"], "batch_size": 10},
    "RABBITMQ": RABBIT,
    "EVENTGRID": GRID,
}


def add(platform: Platform, function: str, kind: str, data: dict[str, Any]) -> Any:
    return ask(platform, "CreateFunctionTrigger", function, trigger_type_code=kind, event_data=data)


def show(platform: Platform, function: str, trigger: Any) -> Any:
    return ask(platform, "ShowFunctionTrigger", function, **_named(trigger))


def update(platform: Platform, function: str, trigger: Any, data: Any = None, status: str | None = None) -> Any:
    return ask(platform, "UpdateTrigger", function, **_named(trigger), trigger_status=status, event_data=data)


def delete(platform: Platform, function: str, trigger: Any) -> Any:
    return ask(platform, "DeleteFunctionTrigger", function, **_named(trigger))


def listed(platform: Platform, function: str) -> list[str]:
    return [trigger.trigger_id for trigger in ask(platform, "ListFunctionTriggers", function).body or []]


def _named(trigger: Any) -> dict[str, Any]:
    return {"trigger_type_code": trigger.trigger_type_code, "trigger_id": trigger.trigger_id}
