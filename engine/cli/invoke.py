"""``functiond invoke``: call a function and wait for the result, or queue an asynchronous invocation."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from engine.cli.invoke_batch import send_batch
from engine.cli.invoke_options import AsyncOptions
from engine.cli.options import Flag, Function, Raw
from engine.cli.output import FAILED, check_raw, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.errors import UsageError

LONGEST_WAIT = 60.0  #: longest wait of the API in seconds; longer waits need several requests
SYNCHRONOUS = AsyncOptions()
Text = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
File = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]


def invoke(
    name: Function,
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
    standard_input
        Read the event from standard input.
    data
        Event as JSON. [default: {}]
    file
        File that contains the event.
    log
        Print the log of the function to standard error.
    """
    check_raw(raw)
    options.check()
    if options.batch is not None:
        if standard_input or data is not None or file is not None:
            raise UsageError("--batch has the events: omit --data, --file and -")
        return send_batch(target.client(), name, options.batch, options, json=target.json)
    body = read_event(standard_input, data, file)
    client, form = target.client(), _Form(json=target.json, log=log, raw=raw)
    if options.asynchronous:
        return _invoke_async(client, name, body, options, form)
    return _call(client, name, body, form)


class _Form(NamedTuple):
    """Form of the output."""

    json: bool
    log: bool  #: with the log of the function
    raw: bool


def read_event(standard_input: bool, data: str | None, file: Path | None) -> bytes:
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
