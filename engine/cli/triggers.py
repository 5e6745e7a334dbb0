"""``functiond triggers`` and ``trigger``: list of triggers, and their creation, change and deletion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from engine.cli.output import Output, Row, print_done, print_json, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy import timers
from engine.deploy.client import Client, path_of, path_of_trigger
from engine.deploy.fields import expected, read_fields
from engine.errors import UsageError
from engine.model.urn import short_name

app = App(name="trigger", help="Create, show, update, move and delete triggers.")

TriggerId = Annotated[str, Parameter(help="Id of the trigger, or its name if no other trigger has it.")]
Status = Literal["ACTIVE", "DISABLED"]
File = Annotated[Path | None, Parameter(show_default=False)]
Crontab = Annotated[str | None, Parameter(show_default=False)]
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  #: of triggers and requests


def triggers(name: str | None = None, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List triggers, with the state of their sources and the number of events since the engine started.

    Parameters
    ----------
    name
        Name or URN of the function. [default: all functions]
    """
    print_list(triggers_of(target.client(), name), "No triggers.", _row, json=target.json)


def triggers_of(client: Client, name: str | None) -> list[dict[str, Any]]:
    """Return the triggers of a function, of any version, or of all functions, as the project's list has them."""
    listed = client.of_project.get_all("/triggers", "triggers")
    urn = name and client.get(path_of(name, "/config"))["func_urn"].split(":")[:7]
    return [trigger for trigger in listed if not urn or trigger["func_urn"].split(":")[:7] == urn]


@app.command
def create(
    function: str,
    kind: str,
    /,
    *fields: str,
    crontab: Crontab = None,
    data: File = None,
    status: Status | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create a trigger, such as ``create report TIMER name=nightly --crontab "0 3 * * *"``.

    Parameters
    ----------
    function
        Name or URN of the function. A URN may name a version or an alias.
    kind
        Type of the trigger, such as TIMER.
    fields
        Fields of the trigger's event_data, as NAME=VALUE. A value that is no JSON is a text; write 'NAME="5"' for
        the text 5.
    crontab
        Schedule of a TIMER, in place of schedule_type and schedule: minute, hour, day of the month, month, day of the
        week. CRON_TZ=Europe/Berlin before it sets the time zone.
    data
        JSON file with event_data, to which the fields are added.
    status
        State of the new trigger. [default: that of its type]
    """
    client = target.client().of_project
    known = client.get("/triggertypes")
    if kind.upper() not in {code.upper() for code in known}:
        raise UsageError(f"{kind} is not a type of triggers: {expected(kind.upper(), known)}")
    body = {"trigger_type_code": kind, "event_data": _data(kind, fields, data, crontab)}
    shown = client.post(f"/triggers{path_of(function)}", body | ({"trigger_status": status} if status else {}))
    _print(shown, "created", function, target)


@app.command
def show(trigger_id: TriggerId, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show a trigger with its event_data and the state of its source."""
    print_json(find_trigger(target.client(), trigger_id))


@app.command
def update(
    trigger_id: TriggerId,
    /,
    *fields: str,
    crontab: Crontab = None,
    data: File = None,
    status: Status | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change fields of a trigger's event_data, or its status. Other fields stay as they are.

    Parameters
    ----------
    fields
        Fields of event_data to change, as NAME=VALUE. A value that is no JSON is a text; write 'NAME="5"' for
        the text 5.
    crontab
        New schedule of a TIMER, as for ``create``.
    data
        JSON file with a whole event_data, which replaces the old one.
    status
        ACTIVE or DISABLED.
    """
    if not fields and data is None and status is None and crontab is None:
        raise UsageError("nothing to change: give fields as NAME=VALUE, --crontab, --data or --status")
    client = target.client()
    old = find_trigger(client, trigger_id)
    body: dict[str, Any] = {"trigger_status": status} if status else {}
    if fields or data or crontab is not None:
        given = _data(old["trigger_type_code"], fields, data, crontab)
        body["event_data"] = given if data else [given]  # a list is merged into the old data, an object replaces it
    shown = client.of_project.put(path_of_trigger(old), body)
    _print(shown, "updated", old["func_urn"], target)


@app.command
def seek(trigger_id: TriggerId, /, *positions: str, target: Target = DEFAULT_TARGET) -> None:
    """Set from where a disabled Kafka trigger reads, such as ``seek orders orders/0=1200 refunds=latest``.

    Parameters
    ----------
    positions
        Positions, as PARTITION=POSITION or TOPIC=POSITION: an offset, earliest, latest, or a time.
    """
    client = target.client()
    given = {"positions": dict(position.rpartition("=")[::2] for position in positions)}
    print_json(client.of_project.post(f"{path_of_trigger(find_trigger(client, trigger_id))}/seek", given))


@app.command
def delete(trigger_id: TriggerId, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a trigger."""
    client = target.client()
    trigger = find_trigger(client, trigger_id)
    client.of_project.send("DELETE", path_of_trigger(trigger))
    kind, name = f"{trigger['trigger_type_code']} trigger", short_name(trigger["func_urn"])
    print_done("deleted", trigger["trigger_id"], json=target.json, kind=kind, function=name)


def find_trigger(client: Client, text: str) -> dict[str, Any]:
    """Return the project's trigger with this id or name. Raise UsageError if there is none, or several."""
    triggers = client.of_project.get_all("/triggers", "triggers")
    matching = [trigger for trigger in triggers if text == trigger["trigger_id"]] or [
        trigger for trigger in triggers if text == trigger["name"]
    ]
    if len(matching) > 1:
        ids = ", ".join(f"{trigger['trigger_id']} ({short_name(trigger['func_urn'])})" for trigger in matching)
        raise UsageError(f"several triggers are named {text}: name one by its id: {ids}")
    if not matching:
        hint = expected(text, [trigger["name"] for trigger in triggers]) if triggers else "the project has no triggers"
        raise UsageError(f"no trigger {text}: {hint}")
    return matching[0]


def trigger_id_of(client: Client, text: str) -> str:
    """Return the id of the project's trigger with this id or name. An id may be that of a deleted trigger."""
    return text if ID.fullmatch(text) else str(find_trigger(client, text)["trigger_id"])


def _data(kind: str, fields: tuple[str, ...], file: Path | None, crontab: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise UsageError(f"--data is {file}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise UsageError(f"--data is {file}: it must hold a JSON object: {error}") from None
    given |= read_fields(fields)
    if crontab is not None:
        if kind.upper() != timers.KIND:
            raise UsageError(f"--crontab is {crontab!r}: only triggers of the type {timers.KIND} have a schedule")
        given["crontab"] = crontab
    timers.warn(kind, given)
    return timers.for_api(kind, given)


def _print(trigger: dict[str, Any], action: str, function: str, target: Target) -> None:
    kind, status = trigger["trigger_type_code"], trigger["trigger_status"].lower()
    text = f"[bold green]{action}[/] {kind} trigger of [bold]{short_name(function)}[/], {status}"
    print_result(trigger, text, trigger["trigger_id"], json=target.json)
    if not target.json and (due := timers.next_due(target.client(), function, trigger)):
        Output().print(f"  due {due}", style="dim")


def _row(trigger: dict[str, Any]) -> Row:
    source, version = trigger["source"], trigger["func_urn"].split(":", 7)[-1]
    return {
        "TRIGGER ID": trigger["trigger_id"],
        "TYPE": trigger["trigger_type_code"],
        "FUNCTION": short_name(trigger["func_urn"]) + ("" if version == "latest" else f" ({version})"),
        "STATE": source["state"],
        "ACCEPTED": str(source["accepted"]),
        "REFUSED": str(source["refused"]),
        "LOST": str(source["lost"]),
        "LAG": str(sum(source["lag"].values())) if source["lag"] else "",
        "MODE": _mode(trigger),
        "NAME": trigger["name"],
        "SCHEDULE OR ADDRESS": _address(trigger),
        "NEXT DUE": timers.due_text(source, 1),
        "NEXT TRY": source["next_try"].replace("T", " "),
        "PROBLEM": source["problem"],
    }


def _mode(trigger: dict[str, Any]) -> str:
    mode = {"sync": "synchronous", "async": "asynchronous"}.get(trigger["mode"], "unknown")
    return f"{mode} (fixed)" if trigger["mode"] == "async" and trigger["mode_fixed"] else mode


def _address(trigger: dict[str, Any]) -> str:
    """Return the URL of a gateway's API; for other kinds the subject, and the path to which senders send events."""
    if url := trigger["event_data"].get("invoke_url"):
        return str(url)
    return " at ".join(filter(None, (trigger["subject"], trigger.get("path", ""))))
