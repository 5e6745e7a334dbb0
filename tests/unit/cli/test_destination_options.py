from __future__ import annotations

import pytest

from engine.deploy.destinations import DestinationOption, read_destination
from engine.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("hello", "FunctionGraph", {"func_urn": "hello"}),
        ("package:hello", "FunctionGraph", {"func_urn": "package:hello"}),
        ("urn:fss:r:p:function:default:f:!live", "FunctionGraph", {"func_urn": "urn:fss:r:p:function:default:f:!live"}),
        ("functiongraph:func_urn=hello", "FunctionGraph", {"func_urn": "hello"}),
        ("SMN:topic_urn=urn:smn:r:p:t", "SMN", {"topic_urn": "urn:smn:r:p:t"}),
        ("smn:topic_urn=alarms", "SMN", {"topic_urn": "alarms"}),
        ("OBS:bucket=results,prefix=a/,expires=7", "OBS", {"bucket": "results", "prefix": "a/", "expires": 7}),
        ("DIS:stream_name=123", "DIS", {"stream_name": "123"}),
        ("KAFKA:instance_id=main,topic=t", "KAFKA", {"instance_id": "main", "topic": "t"}),
        ("WEBHOOK:url=https://h/?a=1,2&b=3", "WEBHOOK", {"url": "https://h/?a=1,2&b=3"}),
        ("OWN:path=/tmp/x,count=3", "OWN", {"path": "/tmp/x", "count": 3}),
    ],
)
def test_a_destination_is_a_function_or_a_kind_with_fields(text: str, kind: str, fields: dict[str, object]) -> None:
    assert read_destination("--on-success", text) == DestinationOption(kind=kind, fields=fields)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SMN:topic=alarms", r"SMN has no field topic: did you mean topic_urn\?"),
        ("KAFKA:instance_id=main", "topic .*; KAFKA has instance_id, topic"),
        ("SMN:", "topic_urn .*; SMN has topic_urn"),
        ("FunctionGraph:", "func_urn .*; FunctionGraph has func_urn"),
        ("OBS:bucket=results,expires=soon", "expires must be a whole number"),
        ("WEBHOOK:url=ftp://x", "must be a complete one that begins with http"),
        ("SMN:topic_urn=a,topic_urn=b", "each field once"),
        ("SMN:=a", "write KIND:FIELD=VALUE"),
    ],
)
def test_a_wrong_field_is_told_beside_the_option(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"^--on-failure is {text}: .*{problem}"):
        read_destination("--on-failure", text)
