"""``functiond stream``: data streams (DIS) and log streams (LTS) that the engine serves itself.

``NAME`` is a data stream, ``GROUP/NAME`` a log stream of a log group.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from engine.cli.options import Flag
from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client
from engine.deploy.services import (
    GROUPS,
    STREAMS,
    all_groups,
    all_streams,
    change_stream,
    find_group,
    find_log_stream,
    log_streams,
    stream_path,
)
from engine.errors import UsageError

app = App(name="stream", help="List, create, update and delete data streams (NAME) and log streams (GROUP/NAME).")

Stream = Annotated[str, Parameter(help="NAME of a data stream, or GROUP/NAME of a log stream.")]
Partitions = Annotated[int | None, Parameter(validator=Number(gte=1), show_default=False)]
Hours = Annotated[int | None, Parameter(validator=Number(gte=24, lte=72), show_default=False)]
Days = Annotated[int | None, Parameter(validator=Number(gte=1, lte=365), show_default=False)]
DataType = Literal["BLOB", "JSON", "CSV", "FILE"]
GROUP_DAYS = 7  #: retention of a new log group


@app.command(name="list")
def list_streams(*, target: Target = DEFAULT_TARGET) -> None:
    """List the data streams and the log streams of the project."""
    client = target.client()
    data, logs = all_streams(client), [stream for group in all_groups(client) for stream in log_streams(client, group)]
    if target.json:
        shown = [{"log_group_name": log.group["log_group_name"], **log.group, **log.stream} for log in logs]
        print_json({"streams": data, "log_streams": shown})
        return
    rows = [
        (stream["stream_name"], "data", str(stream["partition_count"]), f"{stream['retention_period']} h")
        for stream in data
    ]
    rows += [(log.name, "log", "", f"{log.stream['ttl_in_days']} days") for log in logs]
    if rows:
        print_table(("STREAM", "KIND", "PARTITIONS", "KEPT FOR"), rows)
    else:
        Output().print("No streams.", style="dim")


@app.command
def create(
    name: Stream,
    /,
    *,
    partitions: Partitions = None,
    hours: Hours = None,
    data_type: DataType | None = None,
    days: Days = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create a data stream, or a log stream and its log group if that does not exist.

    Parameters
    ----------
    partitions
        Data stream: number of partitions. [default: 1]
    hours
        Data stream: hours for which records are kept, 24 to 72. [default: 24]
    data_type
        Data stream: kind of the records. [default: BLOB]
    days
        Log stream: days for which lines are kept, 1 to 365. [default: those of the group; 7 for a new group]
    """
    client = target.client()
    _check_options(name, {"--partitions": partitions, "--hours": hours, "--data-type": data_type}, {"--days": days})
    if "/" in name:
        _create_log_stream(client, name, days)
    else:
        body = {"partition_count": partitions or 1, "data_duration": hours, "data_type": data_type}
        client.service().post(STREAMS, {"stream_name": name, **_given(body)})
    print_done("created", name, json=target.json)


@app.command
def update(
    name: Stream,
    /,
    *,
    partitions: Partitions = None,
    hours: Hours = None,
    data_type: DataType | None = None,
    days: Days = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change a stream. What is not given stays as it is.

    Parameters
    ----------
    partitions
        Data stream: number of partitions.
    hours
        Data stream: hours for which records are kept, 24 to 72.
    data_type
        Data stream: kind of the records.
    days
        Log stream: days for which lines are kept, 1 to 365.
    """
    client = target.client()
    _check_options(name, {"--partitions": partitions, "--hours": hours, "--data-type": data_type}, {"--days": days})
    changes = _given({"partition_count": partitions, "data_duration": hours, "data_type": data_type})
    if not changes and days is None:
        options = "--days" if "/" in name else "--partitions, --hours or --data-type"
        raise UsageError(f"nothing to change: give {options}")
    if "/" in name:
        stream = find_log_stream(client, name)
        path = f"{GROUPS}/{stream.group['log_group_id']}/streams-ttl/{stream.stream['log_stream_id']}"
        client.service().put(path, {"ttl_in_days": days})
    else:
        change_stream(client, name, changes)
    print_done("updated", name, json=target.json)


@app.command
def delete(name: Stream, /, *, group: Flag = False, target: Target = DEFAULT_TARGET) -> None:
    """Delete a stream with its records or lines. Triggers on it stay, and get no more events.

    Parameters
    ----------
    group
        NAME is a log group: delete it with all its streams.
    """
    client = target.client()
    if group:
        client.service().send("DELETE", f"{GROUPS}/{find_group(client, name)['log_group_id']}")
    elif "/" in name:
        client.service().send("DELETE", find_log_stream(client, name).path)
    else:
        client.service().send("DELETE", stream_path(name))
    print_done("deleted", name, json=target.json)


def _create_log_stream(client: Client, name: str, days: int | None) -> None:
    group_name, _, stream = name.partition("/")
    service = client.service()
    group = next((existing for existing in all_groups(client) if existing["log_group_name"] == group_name), None)
    if group is None:
        group = service.post(GROUPS, {"log_group_name": group_name, "ttl_in_days": days or GROUP_DAYS})
    body = {"log_stream_name": stream, **_given({"ttl_in_days": days})}
    service.post(f"{GROUPS}/{group['log_group_id']}/streams", body)


def _check_options(name: str, data: dict[str, object], log: dict[str, object]) -> None:
    """Raise UsageError for an option of the other kind of streams."""
    wrong, kind, other = (data, "log", "a data stream") if "/" in name else (log, "data", "a log stream, GROUP/NAME")
    for option, value in wrong.items():
        if value is not None:
            raise UsageError(f"{option} is for {other}: {name} is a {kind} stream")


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
