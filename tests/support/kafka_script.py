"""Broker that answers requests of producers as it is told, for answers that no real broker of the tests gives.

The answers have the form of the protocol. Apache Kafka 4.1.1 gives the same error codes.
"""

from __future__ import annotations

import io
import struct
from asyncio import Event, IncompleteReadError, Server, StreamReader, StreamWriter, start_server
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, VerifyMode
from typing import Any

from aiokafka.protocol.admin import ApiVersionResponse_v0, SaslAuthenticateResponse_v0, SaslHandShakeResponse_v1
from aiokafka.protocol.metadata import MetadataRequest_v5, MetadataResponse_v5
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.protocol.transaction import InitProducerIdResponse_v0

PRODUCE, METADATA, HANDSHAKE, VERSIONS, INIT_PRODUCER, AUTHENTICATE = 0, 3, 17, 18, 22, 36
OK, UNKNOWN_TOPIC, INVALID_TOPIC, TOPIC_REFUSED, CLUSTER_REFUSED, LOGIN_REFUSED = 0, 3, 17, 29, 31, 58
LARGEST = 100 << 20  #: bytes of a request; more is no request, such as the beginning of TLS
LIMITS = {PRODUCE: 7, METADATA: 5, HANDSHAKE: 1, VERSIONS: 0, INIT_PRODUCER: 0, AUTHENTICATE: 0}


class ScriptedBroker:
    """Broker with one node. Its answers follow its attributes, which may change while it runs."""

    def __init__(self) -> None:
        self.topic = self.produce = self.init_producer = OK  #: error codes of answers
        self.gates = {PRODUCE: Event(), METADATA: Event()}  #: requests of these kinds are answered while it is set
        for gate in self.gates.values():
            gate.set()
        self.refused: set[str] = set()  #: topics that the login may see and not write
        self.refusal = ""  #: words with which every login is refused
        self.asked: Counter[int] = Counter()  #: requests by kind
        self.values: list[bytes] = []  #: record batches that were accepted
        self.port = 0
        self.leader: tuple[str, int] | None = None  #: address of the node in metadata; None: the broker's own
        self._writers: list[StreamWriter] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, tls: SSLContext | None) -> Server:
        server = await start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def disconnect(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.append(writer)
        answers: dict[int, Callable[[io.BytesIO], Any]] = {
            PRODUCE: self._on_produce,
            METADATA: self._on_metadata,
            HANDSHAKE: lambda body: SaslHandShakeResponse_v1(OK, ["PLAIN"]),
            VERSIONS: lambda body: ApiVersionResponse_v0(OK, [(key, 0, most) for key, most in LIMITS.items()]),
            INIT_PRODUCER: lambda body: InitProducerIdResponse_v0(0, self.init_producer, 7, 0),
            AUTHENTICATE: lambda body: SaslAuthenticateResponse_v0(
                LOGIN_REFUSED if self.refusal else OK, self.refusal, b""
            ),
        }
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                request = await reader.readexactly(size) if size <= LARGEST else b""
                if not request:
                    return
                api, _, correlation, length = struct.unpack(">hhih", request[:10])
                self.asked[api] += 1
                if api in self.gates:
                    await self.gates[api].wait()
                answer = answers[api](io.BytesIO(request[10 + length :])).encode()
                writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
        except (IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _on_metadata(self, body: io.BytesIO) -> MetadataResponse_v5:
        names = MetadataRequest_v5.SCHEMA.decode(body)[0] or []
        partitions: list[Any] = [] if self.topic else [(OK, 0, 1, [1], [1], [])]
        topics = [(self.topic, name, False, partitions) for name in names]
        return MetadataResponse_v5(0, [(1, *(self.leader or ("127.0.0.1", self.port)), None)], "c", 1, topics)

    def _on_produce(self, body: io.BytesIO) -> ProduceResponse_v7:
        topics = ProduceRequest_v7.SCHEMA.decode(body)[3]
        parts: list[Any] = []
        for name, some in topics:
            code = TOPIC_REFUSED if name in self.refused else self.produce
            self.values += [] if code else [batch for _, batch in some]
            parts.append((name, [(number, code, 0, -1, 0) for number, _ in some]))
        return ProduceResponse_v7(parts, 0)


@asynccontextmanager
async def scripted_broker(tls: SSLContext | None = None) -> AsyncIterator[ScriptedBroker]:
    broker = ScriptedBroker()
    server = await broker.start(tls)
    try:
        yield broker
    finally:
        server.close()
        broker.disconnect()


def server_tls(folder: Path, need: VerifyMode) -> SSLContext:
    """Return a context that needs a client certificate or not, with the files of ``write_certificate``."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "cert.pem")
    context.verify_mode = need
    return context
