"""Streams: the bytes of one connection, their pieces, and the requests in them that must be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.integration.framing.mutations import MUTATIONS, mutate_bytes
from tests.integration.framing.requests import Request, valid_request

LINE = re.compile(rb"\r?\n")


@dataclass(frozen=True)
class Stream:
    seed: int
    number: int
    pieces: tuple[bytes, ...]  #: sent one after another, then the end of the stream
    expected: tuple[Request, ...]  #: whole valid requests in front of the first mutation, which must be read
    complete: bool  #: no other request may be read


def stream(seed: int, number: int) -> Stream:
    """Return a stream of one run. Each stream can be made without the streams before it."""
    random = Random(f"{seed}/{number}")
    count = random.choice((1, 1, 2, 2, 3, 5))
    mutated = random.randrange(count) if random.random() < 0.8 else count  #: place of the first mutation
    requests = [valid_request(random, f"{number}-{place}") for place in range(count)]
    valid = requests[:mutated]
    closing = next((place for place, request in enumerate(valid) if request.last), None)
    parts = [request.render() for request in valid]
    for place, request in enumerate(requests[mutated:]):
        parts.append(_mutated(random, request) if place == 0 or random.random() < 0.3 else request.render())
    data = b"".join(parts)
    if random.random() < 0.15:
        data = data[: random.randrange(len(data) + 1)]
    expected = valid if closing is None else valid[: closing + 1]
    complete = mutated == count or closing is not None
    return Stream(seed, number, tuple(cut(random, data)), _whole(expected, len(data)), complete)


def _mutated(random: Random, request: Request) -> bytes:
    if random.random() < 0.2:
        return mutate_bytes(random, request.render())
    for _ in range(random.choice((1, 1, 1, 2))):
        random.choice(MUTATIONS)(random, request)
    return request.render()


def _whole(requests: list[Request], size: int) -> tuple[Request, ...]:
    """Return the requests that lie in the first ``size`` bytes."""
    whole = []
    for request in requests:
        size -= len(request.render())
        if size < 0:
            break
        whole.append(request)
    return tuple(whole)


def cut(random: Random, data: bytes) -> list[bytes]:
    """Split the data: not at all, anywhere, beside line ends, or, if it is short, after each byte."""
    choice = random.random()
    if choice < 0.3 or len(data) < 2:
        cuts: list[int] = []
    elif choice < 0.65:
        cuts = [random.randrange(1, len(data)) for _ in range(random.choice((1, 2, 4)))]
    elif choice < 0.97 or len(data) > 200:
        ends = [match.start() for match in LINE.finditer(data)] or [1]
        cuts = [random.choice(ends) + random.randrange(4) for _ in range(random.choice((1, 2, 4)))]
    else:
        cuts = list(range(1, len(data)))
    edges = [0, *sorted({at for at in cuts if 0 < at < len(data)}), len(data)]
    return [data[low:high] for low, high in pairwise(edges) if low < high]
