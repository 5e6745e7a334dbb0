"""Example of an event of the API gateways: a request. Their body is base64 unless ``isBase64Encoded`` is false."""

from __future__ import annotations

from plugins.apig.events import GatewayRequest, event_json

_REQUEST = GatewayRequest(
    request_id="5d1a2f5c7b0e4c399d0c2f6d8f3c1a11",
    method="POST",
    path="/orders/7",
    query="notify=yes",
    headers={
        "host": "127.0.0.1:8080",
        "content-type": "application/json",
        "user-agent": "curl/8.14.1",
        "x-real-ip": "192.0.2.9",
        "x-forwarded-for": "192.0.2.9",
        "x-forwarded-proto": "http",
    },
    body=b'{"state": "paid"}',
    client="192.0.2.9",
)


def example(kind: str) -> bytes:
    api_id = "9a0364b9e99b480dd25e1f0284c85555"
    return event_json(_REQUEST, {"id": "7"}, api_id, "RELEASE", "/orders/{id}", as_base64=True)
