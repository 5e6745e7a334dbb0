"""``functiond functions``, ``delete``, ``controls``, ``pause`` and ``resume``: functions and their controls."""

from __future__ import annotations

import difflib
import json
from typing import Any

from engine.cli.options import Function
from engine.cli.output import Output, Row, print_done, print_json, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import app_of, path_of
from engine.deploy.fields import read_value
from engine.errors import UsageError
from engine.model.controls import Controls
from engine.model.urn import short_name


def functions(*, app: str = "", target: Target = DEFAULT_TARGET) -> None:
    """List the functions of the project.

    Parameters
    ----------
    app
        Only functions that belong to this app.
    """
    listed = target.client().get_all("", "functions", maxitems=400, app=app)
    print_list(listed, "No functions.", _row, json=target.json)


def apps(*, target: Target = DEFAULT_TARGET) -> None:
    """List the apps of the project: their functions, and when one of these was deployed or changed last."""
    found: dict[str, dict[str, Any]] = {}
    for function in target.client().get_all("", "functions"):
        if name := app_of(function):
            app = found.setdefault(name, {"name": name, "functions": [], "last_modified": ""})
            app["functions"].append(short_name(function["func_urn"]))
            app["last_modified"] = max(app["last_modified"], function["last_modified"])
    listed = [found[name] for name in sorted(found)]
    print_list(listed, "No apps.", _app_row, json=target.json)


def delete(name: Function, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a function. Its waiting invocations are discarded."""
    target.client().send("DELETE", path_of(name))
    print_done("deleted", name, json=target.json)


def controls(name: Function, /, *changes: str, target: Target = DEFAULT_TARGET) -> None:
    """Show the controls of a function: pause, rate of starts, recycling of instances, soft timeout. Or change some.

    Parameters
    ----------
    changes
        Controls to change, such as ``rate=5 burst=10``. The others stay as they are.
    """
    client, path = target.client(), path_of(name, "/controls")
    fields: dict[str, object] = {}
    for text in changes:
        field, value = _change_of(text)
        if field in fields:
            raise UsageError(f"{field} is given twice: give each control once")
        fields[field] = value
    shown = client.patch(path, fields) if fields else client.get(path)
    if target.json:
        print_json(shown)
    else:
        for field, value in shown.items():
            Output().print(f"[bold]{field:<17}[/]", end="")
            Output().data(value if isinstance(value, str) else json.dumps(value), "")


def pause(name: Function, /, *, reason: str = "", target: Target = DEFAULT_TARGET) -> None:
    """Start no invocation of a function until ``functiond resume``.

    Asynchronous requests are still accepted, and wait. Synchronous ones are refused with the reason. Invocations that
    run go on. The pause survives restarts of the engine.

    Parameters
    ----------
    reason
        Text for the refused callers and for other operators.
    """
    _change(name, {"paused": True, "pause_reason": reason}, "[bold yellow]paused[/]", target)


def resume(name: Function, /, *, target: Target = DEFAULT_TARGET) -> None:
    """End the pause of a function. Its waiting invocations start in their order."""
    _change(name, {"paused": False}, "[bold green]resumed[/]", target)


def _change(name: str, changes: dict[str, object], done: str, target: Target) -> None:
    controls = target.client().patch(path_of(name, "/controls"), changes)
    print_result(controls, f"{done} [bold]{name}[/]", json=target.json)


def _change_of(text: str) -> tuple[str, object]:
    """Return the field and the value of ``field=value``. A value that is no JSON is a text, and so is a reason."""
    field, separator, value = text.partition("=")
    names = Controls.__struct_fields__
    if not separator or field not in names:
        near = difflib.get_close_matches(field, names, n=1)
        hint = f"did you mean {near[0]}=…?" if near else f"expected one of {', '.join(names)}"
        raise UsageError(f"{text!r} is not a control and its value: {hint}")
    if field == "pause_reason":  # such as a bare year
        return field, value
    return field, read_value(value)


def _row(function: dict[str, Any]) -> Row:
    return {
        "NAME": short_name(function["func_urn"]),
        "APP": app_of(function),
        "RUNTIME": function["runtime"],
        "HANDLER": function["handler"],
        "MEMORY": f"{function['memory_size']} MB",
        "TIMEOUT": f"{function['timeout']} s",
        "CHANGED": function["last_modified"].replace("T", " "),
        "STATE": "paused" if function.get("paused") else "",
    }


def _app_row(app: dict[str, Any]) -> Row:
    changed = app["last_modified"].replace("T", " ")
    return {"NAME": app["name"], "FUNCTIONS": ", ".join(app["functions"]), "CHANGED": changed}
