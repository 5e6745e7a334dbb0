"""Example of an event of EventGrid: an object that was stored in OBS."""

from __future__ import annotations

from plugins.eventgrid.source import event_json

_OBJECT = {"key": "in/cat.jpg", "size": 51200, "eTag": "9a0364b9e99bb480dd25e1f0284c8555", "versionId": "null"}
_RECEIVED = {
    "id": "5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
    "source": "HC.OBS.DWR",
    "specversion": "1.0",
    "type": "OBS:DWR:ObjectCreated:PUT",
    "subject": "in/cat.jpg",
    "time": "2026-03-01T06:30:00.533Z",
    "ttl": "4000",
    "data": {
        "eventVersion": "3.0",
        "eventSource": "OBS",
        "eventName": "ObjectCreated:Put",
        "eventRegion": "local-1",
        "eventTime": "2026-03-01T06:30:00.533Z",
        "userIdentity": {"ID": "project1"},
        "requestParameters": {"sourceIPAddress": "192.0.2.9"},
        "obs": {
            "Version": "1.0",
            "configurationId": "new-images",
            "bucket": {"name": "photos", "bucket": "photos", "arn": "", "ownerIdentity": {"ID": "project1"}},
            "object": {**_OBJECT, "sequencer": "0000018DF7A1B2C30000000000000001", "oldpsxpth": ""},
        },
    },
}


def example(kind: str) -> bytes:
    return event_json(_RECEIVED, encode_key=False)
