"""Options and positions of Kafka triggers, and their connection. No broker is needed."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from engine import InvalidField
from engine.errors import InvalidTrigger
from engine.resources.trigger_rules import check_keys, read_options, unknown_keys
from plugins._shared.batches import events
from plugins.kafka import plugin
from plugins.kafka.client import connection
from plugins.kafka.offsets import LATER, PartitionOffset, decode_offsets, seek
from plugins.kafka.options import Instance, KafkaOptions, KafkaSettings, OpenKafkaOptions, milliseconds
from tests.support.certificates import write_certificate

NEEDED: dict[str, Any] = {"instance_id": "main", "topic_ids": ["orders"], "batch_size": 10}
LOGIN = {"kafka_user": "reader", "kafka_password": "secret"}


class Record(Struct, kw_only=True):
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    offset: int
    topic: str = "orders"
    partition: int = 2
    timestamp: int = 1500


def options(**changes: Any) -> KafkaOptions:
    check_keys("KAFKA", plugin, unknown_keys(plugin, NEEDED | changes), lenient=True)
    read = read_options("KAFKA", plugin, NEEDED | changes)
    assert isinstance(read, KafkaOptions)
    return read


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kafka_ssl_enable": True}, "kafka_user"),
        ({"kafka_user": "u"}, "kafka_password"),
        ({"kafka_ca": "-----BEGIN x"}, "kafka_ca"),
        ({"kafka_ca": "/etc/passwd", "kafka_ssl_enable": True}, "kafka_ca"),
        ({"kafka_cert": "-----BEGIN x", "kafka_ssl_enable": True}, "kafka_key"),
        ({"kafka_key": "-----BEGIN x", "kafka_ca": "-----BEGIN x", "kafka_ssl_enable": True}, "kafka_key"),
        ({"kafka_mechanism": "GSSAPI"}, "kafka_mechanism"),
        ({"message_format": "binary"}, "message_format"),
        ({"message_fromat": "record"}, "message_fromat"),
        ({"kafka_usr": "u"}, "kafka_usr"),
        ({"isolation": "none"}, "isolation"),
        ({"starting_position": "yesterday"}, "starting_position"),
        ({"starting_position": "2026-01-31T00:00:00"}, "starting_position"),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_its_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        options(**LOGIN | changes if "kafka_ca" in changes or "kafka_cert" in changes else changes)

    assert caught.value.field == f"event_data.{field}"
    assert "/etc/passwd" not in str(caught.value)


def test_a_time_is_read_in_milliseconds() -> None:
    assert milliseconds("starting_position", "1970-01-01T01:00:01.5+01:00") == 1500
    assert options(starting_position="2026-01-31T00:00:00Z").starting_position == "2026-01-31T00:00:00Z"


def test_a_login_of_the_options_replaces_that_of_the_settings_at_the_address_of_the_settings() -> None:
    known = Instance(address="kafka:9093", user="all", password="of the settings", mechanism="SCRAM-SHA-512")
    settings = KafkaSettings(instances={"main": known})

    own = settings.cluster(options(kafka_connect_address="elsewhere:1", kafka_mechanism="PLAIN", **LOGIN))
    without = settings.cluster(options(kafka_connect_address="elsewhere:1"))

    assert (own.address, own.user, own.password, own.mechanism) == ("kafka:9093", "reader", "secret", "PLAIN")
    assert without == known
    assert settings.cluster(options(instance_id="j", kafka_connect_address="elsewhere:1")).password == ""


def test_certificates_of_the_options_make_the_connection(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    cert, key = ((tmp_path / name).read_text() for name in ("cert.pem", "key.pem"))
    given = options(kafka_connect_address="a:1", kafka_ssl_enable=True, kafka_ca=cert, kafka_cert=cert, kafka_key=key)

    arguments = connection(KafkaSettings().cluster(given))

    assert arguments["security_protocol"] == "SSL"
    assert [certificate["subject"] for certificate in arguments["ssl_context"].get_ca_certs()]
    with pytest.raises(OSError, match="TLS cannot use the PEM text: "):
        connection(Instance(address="a:1", tls=True, cert_file=cert, key_file=cert))


@pytest.mark.parametrize("field", ["ca_file", "cert_file", "key_file"])
def test_a_missing_file_of_tls_is_named(tmp_path: Path, field: str) -> None:
    write_certificate(tmp_path)
    files = {"ca_file": "cert.pem", "cert_file": "cert.pem", "key_file": "key.pem"} | {field: "absent.pem"}
    paths: dict[str, Any] = {name: str(tmp_path / file) for name, file in files.items()}

    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/absent.pem"):
        connection(Instance(address="a:1", tls=True, **paths))


def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    with pytest.raises(OSError, match=f"TLS cannot use {tmp_path}/ca.pem: ") as caught:
        connection(Instance(address="a:1", tls=True, ca_file=str(tmp_path / "ca.pem")))

    assert not isinstance(caught.value, ssl.SSLError)


def test_a_message_of_the_format_record_has_all_that_kafka_stores() -> None:
    whole = Record(key=b"7", value="é".encode(), headers=(("trace", b"\xff"), ("trace", b"a")), offset=3)
    binary = Record(key=b"\xfe", value=b"\x00\xff", headers=(), offset=4)
    bare = Record(key=None, value=None, headers=(("none", None),), offset=5)

    [event] = events([whole, binary, bare], {"a": 1}, 1000, "record")

    place = {"timestamp": 1500, "partition": 2}
    assert json.loads(event.payload)["records"] == [
        {
            "messages": [
                {
                    "key": "7",
                    "value": "é",
                    "headers": [
                        {"key": "trace", "value": "/w==", "value_encoding": "base64"},
                        {"key": "trace", "value": "a"},
                    ],
                    "offset": 3,
                    **place,
                },
                {
                    "key": "/g==",
                    "key_encoding": "base64",
                    "value": "AP8=",
                    "value_encoding": "base64",
                    "headers": [],
                    "offset": 4,
                    **place,
                },
                {"key": None, "value": None, "headers": [{"key": "none", "value": None}], "offset": 5, **place},
            ],
            "topic_id": "orders",
        }
    ]


OPTIONS = OpenKafkaOptions(kafka_connect_address="a:1", topic_ids=("orders", "a/b"), batch_size=1)
KNOWN = {
    name: msgspec.json.encode(PartitionOffset(cluster=cluster, offset=9))
    for name, cluster in (("orders/0", "a:1"), ("orders/1", "a:1"), ("a/b/0", "a:1"), ("old/0", "b:1"))
}


def sought(offset: int = -1, at: int | None = None) -> PartitionOffset:
    return PartitionOffset(cluster="a:1", sought=True, offset=offset, at=at)


def test_positions_are_set_by_partition_or_for_a_whole_topic() -> None:
    cursors = seek(OPTIONS, KNOWN, {"orders/1": "1200", "a/b": "1970-01-01T00:00:02Z"})

    assert decode_offsets(cursors, "a:1") == {"orders/1": sought(offset=1200), "a/b/0": sought(at=2000)}


def test_a_topic_is_set_to_its_ends_and_one_partition_otherwise() -> None:
    offsets = decode_offsets(seek(OPTIONS, KNOWN, {"orders": "earliest", "orders/1": "latest"}), "a:1")

    assert offsets == {"orders/0": sought(at=0), "orders/1": sought(at=LATER)}


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ({"orders/2": "5"}, r"a topic or partition that the trigger has read \(a/b/0, orders/0, orders/1\)"),
        ({"old": "5"}, "a topic or partition that the trigger has read"),
        ({"orders/0": "-1"}, "earliest, latest, or a time"),
        ({"orders/0": "9" * 30}, "earliest, latest, or a time"),
        ({"orders/0": "soon"}, "earliest, latest, or a time"),
    ],
)
def test_a_position_that_cannot_be_set_is_refused(positions: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidField, match=text):
        seek(OPTIONS, KNOWN, positions)
