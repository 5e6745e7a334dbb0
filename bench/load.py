"""Load generator: a separate process that sends HTTP requests over plain TCP protocols on uvloop.

The request is built once; the open loop replaces ``STAMP`` in it. Only status and length of replies are parsed.

Run as ``python -m bench.load``: reads a Job as JSON from stdin, writes a Report to stdout. Without ``rate`` (closed
loop), each connection sends its next request when the last is answered. With ``rate`` (open loop), requests are due at
random moments that do not depend on the server. Latency then counts from the moment when a request was due, so a
stalling server cannot hide the requests that it delayed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from array import array
from collections import deque
from random import Random
from typing import cast

import msgspec
import uvloop
from msgspec import Struct, field

#: Placeholder in a body for the nanosecond at which the request was due; has as many digits as that number.
STAMP = "1000000000000000000"
#: Seconds that unanswered requests get after the last one was due.
MAX_WAIT = 30.0


class Job(Struct, frozen=True, kw_only=True):
    port: int
    path: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 64
    count: int = 0  #: number of requests; 0: no limit
    seconds: float = 60.0  #: duration in which requests are sent
    rate: float = 0.0  #: arrivals per second; 0: closed loop


class Percentiles(Struct, frozen=True, kw_only=True):
    """Percentiles of the requests' latencies, or of the generator's delays, in milliseconds."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    worst: float = 0.0


class Report(Struct, frozen=True, kw_only=True):
    requests: int  #: answered requests
    began: float  #: time of the first request by ``time.perf_counter``, which all processes share
    seconds: float  #: time between the first request and the last reply
    statuses: dict[int, int]
    latency: Percentiles
    lag: Percentiles  #: delay of the generator itself, open loop only
    cpu_seconds: float  #: CPU time of the generator, without connecting
    last: list[str]  #: body of each connection's last reply

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def cpu_micros(self) -> float:
        """CPU time of the load generator per request, in microseconds."""
        return self.cpu_seconds / self.requests * 1e6 if self.requests else 0.0


def percentiles(seconds: array[float]) -> Percentiles:
    if not seconds:
        return Percentiles()
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return Percentiles(p50=at(0.5), p90=at(0.9), p99=at(0.99), p999=at(0.999), worst=ordered[-1] * 1000)


class Connection(asyncio.Protocol):
    """Keep-alive connection to the server, with at most one unanswered request."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._pieces = b""
        self._due = 0.0
        self.busy = False
        self.last = b""

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self.busy, self._due = True, due
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass

    def data_received(self, data: bytes) -> None:
        if self._pieces:
            data = self._pieces + data
        head = data.find(b"\r\n\r\n")
        if head < 0 or len(data) < head + 4 + _length(data, head):
            self._pieces = data
            return
        self._pieces, self.busy, self.last = b"", False, data
        self._load.answered(self, int(data[9:12]), self._due)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


def _length(data: bytes, head: int) -> int:
    at = data.find(b"ontent-", 0, head)
    while at >= 0 and data[at + 7 : at + 15].lower() != b"length: ":
        at = data.find(b"ontent-", at + 1, head)
    if at < 0:
        return 0
    end = data.find(b"\r\n", at)
    return int(data[at + 15 : end])


class Load:
    """State that all connections share: the number of requests still to be sent, and the results."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = build(job)
        self._ended = asyncio.Event()
        self._connections: list[Connection] = []
        self._free: deque[Connection] = deque()
        self._overdue: deque[float] = deque()  #: due requests that wait for a free connection
        self._left = job.count or sys.maxsize
        self._open = 0
        self._stop_at = float("inf")
        self._arriving = False
        self._epoch = 0.0
        self._statuses: dict[int, int] = {}
        self._latencies, self._lags = array("d"), array("d")

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        for _ in range(self._job.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._job.port)
            self._connections.append(connection)
        cpu, began = time.process_time(), time.perf_counter()
        self._begin(loop, began)
        max_wait = self._job.seconds + MAX_WAIT
        try:
            await asyncio.wait_for(self._ended.wait(), max_wait)
        except TimeoutError:
            raise SystemExit(f"{self._open} requests not answered within {max_wait:g} s") from None
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return self._report(began, seconds, cpu)

    def _begin(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._stop_at = now + self._job.seconds
        if self._job.rate:
            self._arriving = True
            self._epoch = time.time() - now
            self._free.extend(self._connections)
            threading.Thread(target=self._pace, args=(loop, now), daemon=True).start()
            return
        for connection in self._connections:
            if self._left > 0:
                self._next(connection, now)

    def _report(self, began: float, seconds: float, cpu: float) -> Report:
        for connection in self._connections:
            connection.close()
        return Report(
            requests=len(self._latencies),
            began=began,
            seconds=seconds,
            statuses=self._statuses,
            latency=percentiles(self._latencies),
            lag=percentiles(self._lags),
            cpu_seconds=cpu,
            last=[c.last.partition(b"\r\n\r\n")[2].decode() for c in self._connections if c.last],
        )

    # --- called by connections ------------------------------------------------------------------------------

    def answered(self, connection: Connection, status: int, due: float) -> None:
        now = time.perf_counter()
        self._open -= 1
        self._latencies.append(now - due)
        self._statuses[status] = self._statuses.get(status, 0) + 1
        if self._job.rate:
            self._free.append(connection)
            self._serve()
        elif self._left > 0 and now < self._stop_at:
            self._next(connection, now)
        self._end_if_done()

    def lost(self, connection: Connection) -> None:
        """Count an unanswered request of a lost connection as status 0. The connection is not replaced."""
        if connection.busy:
            connection.busy = False
            self._open -= 1
            self._statuses[0] = self._statuses.get(0, 0) + 1
            self._end_if_done()

    # --- sending --------------------------------------------------------------------------------------------

    def _next(self, connection: Connection, now: float) -> None:
        self._left -= 1
        self._open += 1
        connection.send(self._request, now)

    def _pace(self, loop: asyncio.AbstractEventLoop, began: float) -> None:
        # Runs in a thread, because timers of event loops have a resolution of a millisecond only.
        random, due = Random(20), began
        while self._left > 0:
            due += random.expovariate(self._job.rate)
            if due >= self._stop_at:
                break
            self._left -= 1
            time.sleep(max(0.0, due - time.perf_counter()))
            loop.call_soon_threadsafe(self._arrive, due)
        loop.call_soon_threadsafe(self._all_arrived)

    def _arrive(self, due: float) -> None:
        self._overdue.append(due)
        self._serve()

    def _serve(self) -> None:
        while self._overdue and self._free:
            due = self._overdue.popleft()
            stamp = b"%d" % int((due + self._epoch) * 1e9)
            self._lags.append(time.perf_counter() - due)
            self._open += 1
            self._free.popleft().send(self._request.replace(STAMP.encode(), stamp), due)

    def _all_arrived(self) -> None:
        self._arriving = False
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not (self._open or self._overdue or self._arriving):
            self._ended.set()


def build(job: Job) -> bytes:
    """Return the HTTP request that a job describes, as bytes."""
    body = job.body.encode()
    headers = {"Host": f"127.0.0.1:{job.port}", "Content-Type": "application/json", **job.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {job.path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)

    async def work() -> Report:
        return await Load(job).run()

    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(work())))


if __name__ == "__main__":
    main()
