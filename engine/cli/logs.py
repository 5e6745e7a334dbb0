"""``functiond logs``: logs of one invocation or of a function's latest invocations, also while they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from engine.cli.invocations import find_invocation
from engine.cli.options import Flag, Raw
from engine.cli.output import check_raw, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.cli.triggers import ID
from engine.deploy.client import Client, path_of
from engine.errors import UsageError


def logs(
    name: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative="", show_default=False)] = False,
    errors: Flag = False,
    instances: Flag = False,
    attempt: int | None = None,
    limit: int = 10,
    raw: Raw = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Print log lines with their times and streams.

    Parameters
    ----------
    name
        Request id of an invocation; or name or URN of a function, for its latest asynchronous invocations, its
        synchronous calls, and output that belongs to no request.
    follow
        Print new lines as they are written, until the invocation ends. For a function, until interrupted.
    errors
        Print only the errors with which runs have failed. Of a function, those of its latest invocations that have
        failed or wait for a retry.
    instances
        Leave out asynchronous invocations: print synchronous calls and output that belongs to no request, such
        as raw output of instances that serve several requests at a time.
    attempt
        Number of an attempt of an invocation that was retried. Default: the newest attempt.
    limit
        Maximum number of invocations of a function.
    """
    check_raw(raw)
    if attempt is not None and (follow or not ID.fullmatch(name)):
        raise UsageError("--attempt needs the request id of an invocation, and does not go with --follow")
    client = target.client()
    if ID.fullmatch(name):
        function, _ = find_invocation(client, name, None)
        query = "" if attempt is None else f"?attempt={attempt}"
        paths = [path_of(function, f"/async-invocations/{quote(name)}/logs{query}")]
    elif follow or instances:
        paths = [path_of(name, "/logs")]
    else:
        page = client.get(path_of(name, "/async-invocations"), limit=limit, status="FAIL,WAIT" if errors else "")
        ids = sorted(item["request_id"] for item in page["invocations"])
        paths = [
            *(path_of(name, f"/async-invocations/{quote(request_id)}/logs") for request_id in ids),
            path_of(name, "/logs"),
        ]
    for line in _events(client, paths[0]) if follow else _in_order(client, paths):
        if errors and line["stream"] != "error":
            continue
        if target.json:
            print_json(line, indent=None)
        else:
            write(_shown(line), raw=raw, keep="\t")


def _in_order(client: Client, paths: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the last path by time, and among them the lines of each other path, an invocation, together.

    The lines of a single path are in its order already.
    """
    *invocations, last = paths
    if not invocations:
        yield from _lines(client, last)
        return
    blocks = [[*_lines(client, path)] for path in invocations] + [[line] for line in _lines(client, last)]
    for block in sorted(filter(None, blocks), key=lambda block: block[0]["time"] or ""):
        yield from block


def _lines(client: Client, path: str) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, client.lines(path))


def _events(client: Client, path: str) -> Iterator[dict[str, Any]]:
    for name, data in client.events(path):
        if data and name == b"line":
            yield json.loads(data)
        elif data and name == b"dropped":
            write(f"functiond: {json.loads(data)['lines']} lines were dropped: written too fast", errors=True)


def _shown(line: dict[str, Any]) -> str:
    """Return a log line as text: time, stream, message.

    A time that the function's logger wrote replaces the engine's.
    """
    time, text = line["time"] or "", line["text"]
    stamp, _, rest = text.partition(" ")
    own = line["stream"] == "logger" and stamp.endswith("Z") and len(stamp) == len("2026-01-01T00:00:00.000Z")
    return f"{stamp if own else time} {line['stream']:<6} {rest if own else text}"
