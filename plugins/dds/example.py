"""Example of an event of DDS or GAUSSMONGO: a document that was inserted.

It is not made by the source, because the client of the database may not be installed.
"""

from __future__ import annotations

import json
from typing import Any

TOKEN = '{"_data": "8265E1794800000001"}'
DOCUMENT = '{"_id": {"$oid": "65e17948a1b2c3d4e5f60718"}, "order": 7, "state": "paid"}'


def example(kind: str) -> bytes:
    source = "dds" if kind == "DDS" else "gauss_mongo"
    change = {
        "size_bytes": "173",
        "token": TOKEN,
        "full_document": DOCUMENT,
        "ns": '{"db": "shop", "coll": "orders"}',
    }
    record = {
        "event_source": source,
        "event_name": "insert",
        "region": "local-1",
        "event_version": "1.0",
        source: change,
        "event_source_id": "9a0364b9-e99b-480d-d25e-1f0284c85555",
    }
    event: dict[str, Any] = {"records": [record], **({} if kind == "DDS" else {"vernier": TOKEN})}
    return json.dumps(event).encode()
