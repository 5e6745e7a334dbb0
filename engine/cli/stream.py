"""``functiond stream``: data streams (DIS) and log streams (LTS) that the engine serves itself.

``NAME`` is a data stream, ``GROUP/NAME`` a log stream of a log group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from engine.cli.options import Flag
from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy import services
from engine.deploy.client import Client
from engine.errors import UsageError

app = App(name="stream", help="List, create, update and delete data streams (NAME) and log streams (GROUP/NAME).")

Stream = Annotated[str, Parameter(help="NAME of a data stream, or GROUP/NAME of a log stream.")]
GROUP_DAYS = 7  #: retention of a new log group


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a stream."""

    partitions: Annotated[int | None, Parameter(validator=Number(gte=1), show_default=False)] = None
    "Data stream: number of partitions."

    hours: Annotated[int | None, Parameter(validator=Number(gte=24, lte=72), show_default=False)] = None
    "Data stream: hours for which records are kept, 24 to 72."

    data_type: Literal["BLOB", "JSON", "CSV", "FILE"] | None = None
    "Data stream: kind of the records."

    days: Annotated[int | None, Parameter(validator=Number(gte=1, lte=365), show_default=False)] = None
    "Log stream: days for which lines are kept, 1 to 365."

    def fields(self, name: str) -> dict[str, Any]:
        """Return what was given, by the fields of the API. Raise UsageError for an option of the other kind."""
        given = (
            ("--partitions", "partition_count", self.partitions),
            ("--hours", "data_duration", self.hours),
            ("--data-type", "data_type", self.data_type),
            ("--days", "ttl_in_days", self.days),
        )
        kind, other = ("log", "a data stream") if "/" in name else ("data", "a log stream, GROUP/NAME")
        for option, _, value in given:
            if value is not None and (option == "--days") != (kind == "log"):
                raise UsageError(f"{option} is for {other}: {name} is a {kind} stream")
        return {field: value for _, field, value in given if value is not None}


UNCHANGED = Options()


@app.command(name="list")
def list_streams(*, target: Target = DEFAULT_TARGET) -> None:
    """List the data streams and the log streams of the project."""
    client = target.client()
    data, groups = services.all_streams(client), services.all_groups(client)
    logs = [stream for group in groups for stream in services.log_streams(client, group)]
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
def create(name: Stream, /, *, options: Options = UNCHANGED, target: Target = DEFAULT_TARGET) -> None:
    """Create a data stream, or a log stream and its log group if that does not exist.

    A new data stream has 1 partition of the kind BLOB and keeps records for 24 hours. A new log stream keeps lines as
    long as its group, and a new group for 7 days.
    """
    client, fields = target.client(), options.fields(name)
    if "/" in name:
        _create_log_stream(client, name, fields)
    else:
        client.service().post(services.STREAMS, {"stream_name": name, "partition_count": 1, **fields})
    print_done("created", name, json=target.json)


@app.command
def update(name: Stream, /, *, options: Options = UNCHANGED, target: Target = DEFAULT_TARGET) -> None:
    """Change a stream. What is not given stays as it is."""
    client, changes = target.client(), options.fields(name)
    if not changes:
        given = "--days" if "/" in name else "--partitions, --hours or --data-type"
        raise UsageError(f"nothing to change: give {given}")
    if "/" in name:
        stream = services.find_log_stream(client, name)
        path = f"{services.GROUPS}/{stream.group['log_group_id']}/streams-ttl/{stream.stream['log_stream_id']}"
        client.service().put(path, changes)
    else:
        services.change_stream(client, name, changes)
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
        client.service().send("DELETE", f"{services.GROUPS}/{services.find_group(client, name)['log_group_id']}")
    elif "/" in name:
        client.service().send("DELETE", services.find_log_stream(client, name).path)
    else:
        client.service().send("DELETE", services.stream_path(name))
    print_done("deleted", name, json=target.json)


def _create_log_stream(client: Client, name: str, fields: dict[str, Any]) -> None:
    group_name, _, stream = name.partition("/")
    service = client.service()
    groups = services.all_groups(client)
    group = next((existing for existing in groups if existing["log_group_name"] == group_name), None)
    if group is None:
        group = service.post(services.GROUPS, {"log_group_name": group_name, "ttl_in_days": GROUP_DAYS, **fields})
    service.post(f"{services.GROUPS}/{group['log_group_id']}/streams", {"log_stream_name": stream, **fields})
