"""Triggers of all kinds, and what plugins store: streams, topics, log lines, cursors and ids of received messages."""

from __future__ import annotations

import hmac
import json
from base64 import b64decode
from collections.abc import Mapping
from time import time
from typing import Any

from tests.acceptance.engine_process import PROJECT, REGION, EngineProcess, until
from tests.acceptance.upgrade.replies import ROOT, call, invocations, limit, triggers
from tests.support.http_app import encoded

TOPIC = f"urn:smn:{REGION}:{PROJECT}:orders"
SECRET = "sixteen-or-more-characters"
SHARD = "shardId-0000000000"
EVERY = 10  #: seconds between due times of the timer of ``ticks``
MESSAGE = {"subject": "news", "message": "grüße"}
TRACE = {"trace_id": "t-1", "service_type": "ECS", "resource_type": "ecs", "trace_name": "createServer"}
CLOUD_EVENT = {"specversion": "1.0", "id": "e-1", "source": "shop", "type": "order", "data": {"n": 1}}
PUSH = b'{"ref": "main"}'
#: Messages of which each has called ``pushed`` once.
MESSAGES = 4

_API = {
    "name": "orders",
    "type": 1,
    "path": "/orders/{id}",
    "protocol": "HTTP",
    "req_method": "GET",
    "group_id": "shop",
    "match_mode": "NORMAL",
    "env_name": "RELEASE",
    "env_id": "e",
    "auth": "NONE",
    "func_info": {"timeout": 5000},
}
_DATABASE = {"instance_id": "i", "db_name": "d", "collection_name": "c", "db_password": "secret", "batch_size": 10}
_RATE = {"name": "rarely", "schedule_type": "Rate", "schedule": "30d", "user_event": "ünused"}
#: Triggers by function. Those of kinds that cannot be disabled find no server.
_DISABLED: dict[str, dict[str, dict[str, Any]]] = {
    "served": {
        "TIMER": _RATE,
        "DDS": _DATABASE,
        "DMS": {"queue_id": "q", "consumer_group_id": "g", "polling_interval": 30},
    },
    "held": {
        "KAFKA": {"instance_id": "i", "topic_ids": ["orders"], "batch_size": 10},
        "OPENSOURCEKAFKA": {"kafka_connect_address": "a:9092,b:9092", "topic_ids": ["o"], "batch_size": 10},
    },
}
_ACTIVE: dict[str, dict[str, dict[str, Any]]] = {
    "served": {
        "APIG": _API,
        "DEDICATEDGATEWAY": {**_API, "instance_id": "gateway"},
        "APIC": {**_API, "path": "/later", "func_info": {"timeout": 5000, "invocation_type": "async"}},
    },
    "held": {
        "GAUSSMONGO": _DATABASE,
        "OBS": {"bucket": "photos", "events": ["s3:ObjectCreated:*"], "prefix": "in/"},
        "RABBITMQ": {"instance_id": "i", "exchange_name": "x", "access_password": "secret", "batch_size": 1},
    },
    "pushed": {
        "SMN": {"topic_urn": TOPIC},
        "CTS": {"name": "audit", "operations": ["ECS:ecs:createServer"]},
        "EVENTGRID": {"channel_id": "channel", "event_types": ["order"]},
        "WEBHOOK": {"name": "hook", "secret": SECRET, "scheme": "github"},
    },
    "ticks": {"TIMER": {"name": "often", "schedule_type": "Cron", "schedule": f"*/{EVERY} * * * * *"}},
    "clicks": {"DIS": {"stream_name": "clicks", "sharditerator_type": "TRIM_HORIZON", "is_serial": "true"}},
}


def create_sources(engine: EngineProcess) -> dict[str, str]:
    """Create stores and triggers, and send events of which some are read. Return ids by name or trigger kind."""
    call(engine, "POST", f"{ROOT}/streams", {"stream_name": "clicks", "partition_count": 1, "data_duration": 72})
    call(engine, "POST", f"{ROOT}/streams", {"stream_name": "split", "partition_count": 2})
    call(engine, "PUT", f"{ROOT}/streams/split", {"stream_name": "split", "target_partition_count": 3})
    call(engine, "POST", f"{ROOT}/notifications/topics", {"name": "orders", "display_name": "Örders"})
    ids = _create_logs(engine)
    for status, kinds in (("DISABLED", _DISABLED), ("ACTIVE", _ACTIVE)):
        for name, configured in kinds.items():
            ids |= {kind: create(engine, name, kind, data, status) for kind, data in configured.items()}
    lines = {"log_group_id": ids["group"], "log_topic_id": ids["stream"]}
    ids["LTS"] = create(engine, "lines", "LTS", lines, "ACTIVE")
    ids["message"] = push(engine, ids)
    until(lambda: len(invocations(engine, "pushed")) == MESSAGES)
    _read_partly(engine, ids)
    _create_app(engine)
    return ids


def create(engine: EngineProcess, name: str, kind: str, data: dict[str, Any], status: str) -> str:
    body = {"trigger_type_code": kind, "event_data": data, "trigger_status": status}
    trigger_id: str = call(engine, "POST", triggers(name), body)["trigger_id"]
    return trigger_id


def push(engine: EngineProcess, ids: Mapping[str, str]) -> str:
    """Send ``MESSAGES`` messages with ids to the triggers of ``pushed``. Return the id that the topic gives to its."""
    call(engine, "POST", "/triggers/cts", TRACE)
    call(engine, "POST", "/triggers/eventgrid/channel", CLOUD_EVENT, Content_Type="application/cloudevents+json")
    signature = f"sha256={hmac.digest(SECRET.encode(), PUSH, 'sha256').hex()}"
    headers = {"X_Hub_Signature_256": signature, "X_Github_Delivery": "d-1", "X_Github_Event": "push"}
    call(engine, "POST", f"/triggers/webhook/{ids['WEBHOOK']}", PUSH, **headers)
    publish = f"{ROOT}/notifications/topics/{TOPIC}/publish"
    message_id: str = call(engine, "POST", publish, MESSAGE, Idempotency_Key="once")["message_id"]
    return message_id


def _create_logs(engine: EngineProcess) -> dict[str, str]:
    group = call(engine, "POST", f"{ROOT}/groups", {"log_group_name": "shop", "ttl_in_days": 7})["log_group_id"]
    body = {"log_stream_name": "web", "log_stream_name_alias": "wéb", "tags": [{"key": "k", "value": "v"}]}
    return {"group": group, "stream": call(engine, "POST", f"{ROOT}/groups/{group}/streams", body)["log_stream_id"]}


def put_records(engine: EngineProcess, *texts: str) -> None:
    records = [{"data": encoded(text), "partition_key": f"key of {text}"} for text in texts]
    call(engine, "POST", f"{ROOT}/records", {"stream_name": "clicks", "records": records})


def send_lines(engine: EngineProcess, ids: Mapping[str, str], *texts: str) -> None:
    path = f"{ROOT}/lts/groups/{ids['group']}/streams/{ids['stream']}/tenant/contents"
    call(engine, "POST", path, {"log_time_ns": int(time() * 1e9), "contents": texts, "labels": {"host": "web-1"}})


def records_read(engine: EngineProcess) -> list[str]:
    """Return the data of all records for which ``clicks`` was called, in the order of acceptance."""
    events = [json.loads(invocation["payload"]) for invocation in invocations(engine, "clicks")]
    return [b64decode(record["data"]).decode() for event in events for record in event["Message"]["records"]]


def lines_read(engine: EngineProcess) -> list[str]:
    """Return all log lines for which ``lines`` was called, in the order of acceptance."""
    events = [
        json.loads(b64decode(json.loads(invocation["payload"])["lts"]["data"]))
        for invocation in invocations(engine, "lines")
    ]
    return [line["message"] for event in events for line in json.loads(event["logs"])]


def _read_partly(engine: EngineProcess, ids: Mapping[str, str]) -> None:
    """Let the triggers of both streams read the first entries, then store further ones for disabled functions."""
    put_records(engine, "one", "two", "three")
    send_lines(engine, ids, "line one", "line two")
    until(lambda: "three" in records_read(engine))
    until(lambda: "line two" in lines_read(engine))
    for name in ("clicks", "lines"):
        for invocation in invocations(engine, name):
            engine.record(name, invocation["request_id"], wait=30)
        limit(engine, name, 0)
    put_records(engine, "four", "fünf")
    send_lines(engine, ids, "line three", "line vier ✓")


def _create_app(engine: EngineProcess) -> None:
    """Create an app that has read two records."""
    call(engine, "POST", f"{ROOT}/apps", {"app_name": "reader"})
    position = {"app_name": "reader", "stream_name": "clicks", "partition_id": SHARD, "sequence_number": "2"}
    call(engine, "POST", f"{ROOT}/checkpoints", {**position, "checkpoint_type": "LAST_READ", "metadata": "mine"})


def due_times(engine: EngineProcess) -> list[str]:
    """Return the due times for which the timer has called ``ticks``."""
    return [json.loads(invocation["payload"])["time"] for invocation in invocations(engine, "ticks")]
