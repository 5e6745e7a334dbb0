"""Nastiest legal inputs of the engine's routes: bodies up to their limits, and requests with the largest replies.

Each input is a function that prepares the engine, and returns the request to be measured.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from bench.server import MAX_WAIT, NOOP, PROJECT, Engine

MB = 1 << 20
CODE = 67 * MB  #: bytes of a body with code, just below the limit
PACKAGE = 49 * MB
DETAILS = 52 << 10  #: bytes of a function's fields that have no effect in the engine
FUNCTIONS = 400
BASE = f"/v2/{PROJECT}/fgs"
LARGE = "def handler(event, context):\n    return {'a': ['x' * 10] * 440_000}\n"
TEXT = "def handler(event, context):\n    return '\\xe9' * 3_000_000\n"
TALKER = "def handler(event, context):\n    for _ in range(400_000):\n        print('x')\n"


class Input(Struct, frozen=True, kw_only=True):
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}


def send(engine: Engine, given: Input) -> int:
    """Send an input, read the whole reply, and return its status. A status of 0: the engine closed the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=MAX_WAIT)
    try:
        headers = {"Content-Type": "application/json", **given.headers}
        connection.request(given.method, given.path, given.body or None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    finally:
        connection.close()


Prepare = Callable[[Engine, float], Input]


def _create(**more: Any) -> dict[str, Any]:
    return {
        "func_name": "nasty",
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 60,
        "memory_size": 128,
        "code_type": "zip",
        **more,
    }


def _padded(head: bytes, block: bytes, tail: bytes, size: int = CODE) -> bytes:
    return head + block * ((size - len(head) - len(tail)) // len(block)) + tail


def _zip(sizes: Iterator[int]) -> bytes:
    buffer, noise = io.BytesIO(), random.Random(1)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("index.py", NOOP)
        for number, size in enumerate(sizes):
            archive.writestr(f"data{number}", noise.randbytes(size))
    return buffer.getvalue()


def _post_code(body: bytes) -> Input:
    return Input(method="POST", path=f"{BASE}/functions", body=body)


def _code(engine: Engine, scale: float) -> Input:
    package = base64.b64encode(_zip(iter([PACKAGE]))).decode()
    return _post_code(json.dumps(_create(func_code={"file": package})).encode())


def _escaped_code(engine: Engine, scale: float) -> Input:
    package = base64.b64encode(_zip(iter([PACKAGE // 2]))).decode()
    return _post_code(
        json.dumps(_create(func_code={"file": package})).replace("/", "\\/").replace("A", "\\u0041").encode()
    )


def _small_files(engine: Engine, scale: float) -> Input:
    package = base64.b64encode(_zip(0 for _ in range(int(60_000 * scale)))).decode()
    return _post_code(json.dumps(_create(func_code={"file": package})).encode())


def _deep_code(engine: Engine, scale: float) -> Input:
    return _post_code(_padded(b'{"x":', b"[", b"]}"))


def _many_values(engine: Engine, scale: float) -> Input:
    return _post_code(_padded(b'{"x":[', b"[],", b"0]}"))


def _many_texts(engine: Engine, scale: float) -> Input:
    return _post_code(_padded(b'{"x":[', b'"\\"",', b"0]}"))


def _not_base64(engine: Engine, scale: float) -> Input:
    head = json.dumps(_create(func_code={"file": ""})).encode()[:-3]
    return _post_code(_padded(head, b"A" * 1023 + b"*", b'"}}'))


def _dependency(engine: Engine, scale: float) -> Input:
    package = base64.b64encode(_zip(iter([PACKAGE]))).decode()
    body = {"name": "nasty", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}
    return Input(method="POST", path=f"{BASE}/dependencies/version", body=json.dumps(body).encode())


def _stored(engine: Engine) -> str:
    given = _code(engine, 1.0)
    engine.call(given.method, given.path, json.loads(given.body))
    return f"{BASE}/functions/urn:fss:local-1:{PROJECT}:function:default:nasty"


def _show_code(engine: Engine, scale: float) -> Input:
    return Input(method="GET", path=f"{_stored(engine)}/code")


def _export(engine: Engine, scale: float) -> Input:
    return Input(method="GET", path=f"{_stored(engine)}/export")


def _import(engine: Engine, scale: float) -> Input:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("nasty.yaml", json.dumps(_create()))
        archive.writestr("nasty.zip", _zip(iter([PACKAGE])))
    code = base64.b64encode(buffer.getvalue()).decode()
    body = {"func_name": "nasty", "file_name": "nasty.zip", "file_type": "zip", "file_code": code}
    return Input(method="POST", path=f"{BASE}/functions/import", body=json.dumps(body).encode())


def _invoke(block: bytes) -> Prepare:
    def prepare(engine: Engine, scale: float) -> Input:
        path = engine.deploy("noop", NOOP)
        engine.call("POST", f"{path}/invocations", {})
        return Input(method="POST", path=f"{path}/invocations", body=_padded(b"[", block, b"0]", 6 * MB))

    return prepare


def _result(source: str, **headers: str) -> Prepare:
    def prepare(engine: Engine, scale: float) -> Input:
        path = engine.deploy("large", source)
        engine.call("POST", f"{path}/invocations", {})
        return Input(method="POST", path=f"{path}/invocations", body=b"{}", headers=headers)

    return prepare


def _invoke_async(engine: Engine, scale: float) -> Input:
    path = engine.deploy("noop", NOOP)
    return Input(method="POST", path=f"{path}/invocations-async", body=_padded(b"[", b"[],", b"0]", 256 << 10))


def _config(engine: Engine, scale: float) -> Input:
    path = engine.deploy("noop", NOOP)
    head = json.dumps(_create(func_name="noop", x=0)).encode()[:-2]
    return Input(method="PUT", path=f"{path}/config", body=_padded(head + b"[", b"null,", b"0]}", 256 << 10))


def _events(engine: Engine, scale: float) -> Input:
    path = engine.deploy("noop", NOOP)
    content = base64.b64encode(b"[" + b"[]," * 20_000 + b"0]").decode()
    body = {"name": "nasty", "content": content}
    return Input(method="POST", path=f"{path}/events", body=json.dumps(body).encode())


def _fill(engine: Engine, scale: float) -> None:
    for number in range(max(2, int(FUNCTIONS * scale))):
        code = {"file": base64.b64encode(NOOP.encode()).decode()}
        tags = json.dumps({f"k{index}": "v" * 250 for index in range(20)})
        body = _create(
            func_name=f"f{number}",
            code_type="inline",
            func_code=code,
            log_config={"a": "\\" * (DETAILS // 2)},
            tags=tags,
        )
        engine.call("POST", f"{BASE}/functions", body)


def _get(path: str) -> Prepare:
    def prepare(engine: Engine, scale: float) -> Input:
        _fill(engine, scale)
        return Input(method="GET", path=path)

    return prepare


def _find_tags(engine: Engine, scale: float) -> Input:
    _fill(engine, scale)
    head = b'{"tags":[{"key":"k1","values":["'
    body = _padded(head, b'","', b'"]}]}', MB)
    return Input(method="POST", path=f"/v2/{PROJECT}/functions/resource-instances/filter", body=body)


def _nulls(engine: Engine, scale: float) -> Input:
    body = _padded(b'{"limit":null,"x":[', b"null,", b"0]}", MB)
    return Input(method="POST", path=f"/v2/{PROJECT}/functions/resource-instances/filter", body=body)


def _log(path: str) -> Prepare:
    def prepare(engine: Engine, scale: float) -> Input:
        function = engine.deploy("talker", TALKER)
        reply = engine.call("POST", f"{function}/invocations-async", {})
        engine.wait_for(function, reply["request_id"])
        urn = function.rpartition("/")[2]
        return Input(method="GET", path=path.format(function=function, urn=urn, id=reply["request_id"]))

    return prepare


def _talk(engine: Engine, scale: float) -> Input:
    return Input(method="POST", path=f"{engine.deploy('talker', TALKER)}/invocations", body=b"{}")


def _streams(engine: Engine, scale: float) -> Input:
    engine.call("POST", f"/v2/{PROJECT}/streams", {"stream_name": "nasty", "partition_count": 1})
    record = {"data": base64.b64encode(b"x" * 500).decode(), "partition_key": "k"}
    body = {"stream_name": "nasty", "records": [record] * 10_000}
    return Input(method="POST", path=f"/v2/{PROJECT}/records", body=json.dumps(body).encode())


def _lines(engine: Engine, scale: float) -> Input:
    group = engine.call("POST", f"/v2/{PROJECT}/groups", {"log_group_name": "g", "ttl_in_days": 1})["log_group_id"]
    stream = engine.call("POST", f"/v2/{PROJECT}/groups/{group}/streams", {"log_stream_name": "s"})["log_stream_id"]
    lines = json.dumps({"log_time_ns": 1_700_000_000_000_000_000, "contents": ["x" * 480] * 10_000}).encode()
    path = f"/v2/{PROJECT}/lts/groups/{group}/streams/{stream}/tenant/contents"
    return Input(method="POST", path=path, body=gzip.compress(lines, 1), headers={"Content-Encoding": "gzip"})


#: Each input by its route.
INPUTS: dict[str, Prepare] = {
    "code": _code,
    "code, escaped": _escaped_code,
    "code, small files": _small_files,
    "code, deep": _deep_code,
    "code, values": _many_values,
    "code, texts": _many_texts,
    "code, not base64": _not_base64,
    "dependency": _dependency,
    "import": _import,
    "show code": _show_code,
    "export": _export,
    "event, lists": _invoke(b"[],"),
    "event, texts": _invoke(b'"\\u00e9",'),
    "asynchronous event": _invoke_async,
    "large result": _result(LARGE),
    "result in JSON": _result(TEXT, **{"X-CFF-Request-Version": "v1", "X-Cff-Log-Type": "tail"}),
    "output": _talk,
    "configuration": _config,
    "test event": _events,
    "find by tags": _find_tags,
    "nulls": _nulls,
    "list of functions": _get(f"{BASE}/functions"),
    "list of tags": _get(f"/v2/{PROJECT}/functions/tags"),
    "statistics": _get(f"{BASE}/functions/statistics?filter=monitor_data&period=1440"),
    "console, functions": _get(f"/console/projects/{PROJECT}/functions"),
    "metrics": _get("/metrics"),
    "document": _get("/openapi.json"),
    "record": _log("{function}/async-invocations/{id}"),
    "log": _log("{function}/async-invocations/{id}/logs"),
    "stream of records": _streams,
    "log lines": _lines,
}
