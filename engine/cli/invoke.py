"""``functiond invoke`` and ``rerun``: call a function, queue an invocation, or invoke again with an earlier event."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from engine.cli.invocations import find_invocation
from engine.cli.invoke_batch import send_batch
from engine.cli.invoke_options import AsyncOptions
from engine.cli.options import Flag, Raw
from engine.cli.output import FAILED, check_raw, print_json, print_result, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.errors import UsageError

LONGEST_WAIT = 60.0  #: longest wait of the API in seconds; longer waits need several requests
SYNCHRONOUS = AsyncOptions()
Text = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
File = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]


def invoke(
    name: str,
    /,
    *,
    standard_input: Annotated[Flag, Parameter(name="-")] = False,
    data: Text = None,
    file: File = None,
    options: AsyncOptions = SYNCHRONOUS,
    log: Flag = False,
    raw: Raw = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Call a function. Print the result to standard output. Exit with code 1 if the function failed.

    Parameters
    ----------
    name
        Name or URN of the function.
    standard_input
        Read the event from standard input.
    data
        Event as JSON. [default: {}]
    file
        File that contains the event.
    log
        Print the log of the function to standard error.
    raw
        Print control characters unchanged. Only for files and pipes.
    """
    check_raw(raw)
    options.check()
    if options.batch is not None:
        if standard_input or data is not None or file is not None:
            raise UsageError("--batch has the events: omit --data, --file and -")
        return send_batch(target.client(), name, options.batch, options, json=target.json)
    body = _read_event(standard_input, data, file)
    client, form = target.client(), _Form(json=target.json, log=log, raw=raw)
    if options.asynchronous:
        return _invoke_async(client, name, body, options, form)
    return _call(client, name, body, form)


def rerun(
    request_id: str,
    /,
    *,
    data: Text = None,
    file: File = None,
    priority: int | None = None,
    delay: float | None = None,
    function: str | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Invoke a function again with the event of an invocation that has ended, or with an edited event.

    Parameters
    ----------
    request_id
        Request id of the earlier invocation.
    data
        Edited event as JSON. [default: the earlier event]
    file
        File that contains the edited event; ``-`` for standard input.
    priority
        0 to 9. [default: that of the earlier invocation]
    delay
        Seconds to wait before the first run.
    function
        Name or URN of the function. [default: search all functions]
    """
    client = target.client()
    changes: dict[str, Any] = {"priority": priority, "delay": delay}
    body = {name: value for name, value in changes.items() if value is not None}
    if data is not None or file is not None:
        try:
            body["event"] = json.loads(_read_event(False, data, file))
        except ValueError as error:
            raise UsageError(f"the event is not JSON ({error}): correct --data or --file") from None
    name, _ = find_invocation(client, request_id, function)
    found = client.post(path_of(name, f"/async-invocations/{request_id}/run-again"), body)
    text = f"[bold green]invoked again[/] {request_id} as {found['request_id']}"
    print_result(found, text, json=target.json)


class _Form(NamedTuple):
    """Form of the output."""

    json: bool
    log: bool  #: with the log of the function
    raw: bool


def _read_event(standard_input: bool, data: str | None, file: Path | None) -> bytes:
    """Return the event that options name: its text, its file, or standard input. Raise UsageError for several."""
    if standard_input + (data is not None) + (file is not None) > 1:
        raise UsageError("give the event once: as --data, as --file, or as - for standard input")
    if data is not None:
        return data.encode()
    if standard_input or file == Path("-"):
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes() if file else b"{}"
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


def _call(client: Client, name: str, body: bytes, form: _Form) -> int:
    headers = {"X-Cff-Log-Type": "tail"} if form.log else {}
    answer = client.send("POST", path_of(name, "/invocations"), body, headers)
    text = base64.b64decode(answer.headers.get("x-cff-function-log", "")).decode("utf-8", "replace")
    failed = answer.headers.get("x-is-func-err") == "true"
    result = answer.body.decode("utf-8", "replace")
    if form.json:
        more = {"log": text} if form.log else {}
        status = "FAIL" if failed else "SUCCESS"
        print_json(
            {"request_id": answer.headers["x-cff-request-id"], "status": status, "result": _parse_json(result), **more}
        )
    else:
        _show(result, text, form)
    return FAILED if failed else 0


def _invoke_async(client: Client, name: str, body: bytes, options: AsyncOptions, form: _Form) -> int:
    answer = client.send("POST", path_of(name, "/invocations-async"), body, options.headers())
    request_id, bound = answer.json["request_id"], options.max_wait
    if bound is None:
        print_json({"request_id": request_id}) if form.json else write(request_id)
        return 0
    if not form.json:
        write(request_id, errors=True)
    record = _wait_for_end(client, path_of(name, f"/async-invocations/{request_id}"), bound)
    state = record["status"]
    if form.json:
        texts = {name: _parse_json(record[name]) for name in ("payload", "result") if name in record}
        print_json(record | texts)
    elif record["end_time"] is None:
        hint = f"the invocation continues: `show {request_id}` shows its result"
        write(f"functiond: {state} after {bound:g} s; {hint}", errors=True)
    else:
        _show(record.get("result", ""), record.get("log", "") if form.log else "", form)
        if state != "SUCCESS":
            write(f"functiond: {state} {record['error_code']} {record['error_message']}", errors=True, raw=form.raw)
        elif record["error_message"]:
            write(f"functiond: {record['error_message']}", errors=True, raw=form.raw)
    return 0 if state == "SUCCESS" else FAILED


def _wait_for_end(client: Client, path: str, bound: float) -> dict[str, Any]:
    """Wait up to ``bound`` seconds, possibly infinite, for the end of the invocation at the API path ``path``.

    Returns the invocation's state as the API returns it, even if the invocation has not ended.
    """
    until = time.monotonic() + bound
    while True:
        left = max(0.0, until - time.monotonic())
        record: dict[str, Any] = client.get(path, wait=f"{min(left, LONGEST_WAIT):.3f}")
        if record["end_time"] is not None or left <= LONGEST_WAIT:
            return record


def _show(result: str, log: str, form: _Form) -> None:
    if log:
        write(log.rstrip("\n"), errors=True, raw=form.raw)
    if result:
        write(result, raw=form.raw)


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text. Return a text that is not JSON unchanged."""
    try:
        return json.loads(text)
    except ValueError:
        return text
