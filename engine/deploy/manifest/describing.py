"""Description of a project as the TOML text of a manifest. Secrets become references to variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import tomlkit
from msgspec import Struct

from engine.code.store import NO_CODE
from engine.deploy.manifest.project import Data, Project, References
from engine.deploy.manifest.reading import CONFIGURATION, AsyncTable, escaped
from engine.deploy.manifest.triggers import qualifier_of
from engine.deploy.manifest.versions import alias_fields, read_param
from engine.http.api.function_replies import function_reply
from engine.http.api.function_shapes import variables_of
from engine.http.api.secrets import is_secret
from engine.model import Function
from engine.model.controls import Controls
from engine.model.text import MASK
from engine.model.urn import LATEST

_ALWAYS = ("runtime", "handler", "memory_size", "timeout")
#: Names of variables that suggest a secret, beside those of ``is_secret``.
_NAMES = re.compile(r"(?:key|pass|pwd|auth|dsn|jwt|salt|webhook)s?(?:_|$)", re.IGNORECASE)
#: Texts that contain a secret: the login of a URL, a field such as ``password=``, a private key, a header of a request.
_FORMS = re.compile(
    r"://[^/\s]*@|-----BEGIN|^(?:Bearer|Basic) "
    r"|(?:passw\w{0,20}|pwd|secret\w{0,20}|token|key|sig|signature)[\"']?\s*[=:]",
    re.IGNORECASE,
)
_NEW = Function(
    function_id=0, project="", package="", name="", runtime="", handler="", memory_size=0, timeout=0, code=NO_CODE
)


class Variable(Struct):
    """Reference to a variable that holds a secret."""

    name: str
    value: str | None = None  #: None: the engine does not show it


def described(project: Project) -> Data:
    """Return the data of a manifest that declares everything in a project, except code."""
    references = References(project)
    functions = sorted(project.functions.items())
    data: Data = {
        "functions": {name: _function(name, function, project, references) for name, function in functions},
        "topics": {name: _given(topic, ("display_name",)) for name, topic in project.topics.items()},
        "streams": {name: _stream(stream) for name, stream in project.streams.items()},
        "log_groups": {name: _group(name, group, project) for name, group in project.own_groups.items()},
    }
    seen: Counter[str] = Counter()
    for variable in variables_in(data):  # of the same name get numbers, because each holds another secret
        seen[name := variable.name] += 1
        if seen[name] > 1:
            variable.name = f"{name}_{seen[name]}"
    return data


def variables_in(value: Any) -> Iterator[Variable]:
    """Yield the variables to which data refers."""
    if isinstance(value, Variable):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from variables_in(item)


def revealed(value: Any) -> Any:
    """Return data with the secrets in place of their variables, except those that the engine does not show."""
    return _each(
        value, lambda item: escaped(item.value) if isinstance(item, Variable) and item.value is not None else item
    )


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return data with each value that is neither a table nor a list converted, without null fields: TOML has none."""
    if isinstance(value, dict):
        return {name: _each(item, convert) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_each(item, convert) for item in value]
    return convert(value)


def variable_of(*parts: str, value: str | None = None) -> Variable:
    return Variable(re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII).upper(), value)


def holds_secret(name: str, value: str) -> bool:
    """Return whether a variable of a function holds a secret, by its name or by the form of its value."""
    return bool(is_secret(name) or _NAMES.search(name) or _FORMS.search(value))


def _function(name: str, function: Data, project: Project, references: References) -> Data:
    usual: Data = msgspec.to_builtins(function_reply(_NEW, ""))
    config = {key: function[key] for key in CONFIGURATION if key in function}
    table: Data = {key: config[key] for key in _ALWAYS}
    table |= {key: value for key, value in config.items() if key not in _ALWAYS and value != usual.get(key)}
    if function["code_type"] == "obs":
        table["code_url"] = function["code_url"]
    table = _plain(table)
    table |= _environments(name, function)
    settings = project.settings(name)
    if LATEST in settings:
        table["async_invoke_config"] = _settings(name, settings[LATEST], references)
    controls, defaults = project.controls(name), msgspec.to_builtins(Controls())
    if changed := {key: value for key, value in controls.items() if value != defaults.get(key)}:
        table["controls"] = _plain(changed)
    if versions := project.versions(name):
        table["versions"] = {
            version: _version(name, v, settings.get(version), references) for version, v in versions.items()
        }
    if aliases := project.aliases(name):
        table["aliases"] = {alias_name: _plain(alias_fields(alias)) for alias_name, alias in aliases.items()}
    if triggers := project.triggers_of(name):
        table["triggers"] = [_trigger(name, trigger, references) for trigger in triggers]
    return table


def _environments(name: str, function: Data) -> Data:
    public, private = (variables_of(field, function[field]) for field in ("user_data", "encrypted_user_data"))
    hidden = {key: variable_of(name, key, value=value) for key, value in public.items() if holds_secret(key, value)}
    tables = {
        "environment": {key: hidden.get(key) or escaped(value) for key, value in public.items()},
        "encrypted_environment": {key: variable_of(name, key, value=value) for key, value in private.items()},
    }
    return {key: table for key, table in tables.items() if table}


def _settings(name: str, settings: Data, references: References) -> Data:
    table = _given(settings, tuple(field for field in AsyncTable.__struct_fields__ if field != "destination_config"))
    destinations = {}
    for condition, spec in settings["destination_config"].items():
        if spec:
            param = references.named_param(spec["destination"], read_param(spec["param"]))
            destinations[condition] = {"destination": spec["destination"], "param": _secured(param, name, condition)}
    return table | ({"destination_config": destinations} if destinations else {})


def _version(name: str, version: Data, settings: Data | None, references: References) -> Data:
    description = version.get("version_description", "")
    table: Data = {"description": escaped(description)} if description else {}
    return table | ({"async_invoke_config": _settings(name, settings, references)} if settings else {})


def _trigger(name: str, trigger: Data, references: References) -> Data:
    kind, qualifier = trigger["trigger_type_code"], qualifier_of(trigger)
    table: Data = {"trigger_type_code": kind}
    if qualifier != LATEST:
        table["qualifier"] = qualifier
    if trigger["trigger_status"] == "DISABLED":
        table["trigger_status"] = "DISABLED"
    data = references.named_event_data(kind, trigger["given_data"])
    label = str(data.get("name") or kind)
    return {**table, "event_data": _secured(data, name, label)}


def _stream(stream: Data) -> Data:
    table = _given(stream, ("partition_count", "data_type", "stream_type"))
    return {**table, "data_duration": stream["retention_period"]}


def _group(name: str, group: Data, project: Project) -> Data:
    days, streams = group["ttl_in_days"], {}
    for log_stream in project.streams_of(name):
        own = log_stream.stream["ttl_in_days"]
        streams[log_stream.stream["log_stream_name"]] = {} if own == days else {"ttl_in_days": own}
    return {"ttl_in_days": days} | ({"streams": streams} if streams else {})


def _given(data: Data, names: tuple[str, ...]) -> Data:
    """Return the fields of these names that have a value."""
    given: Data = _plain({name: data[name] for name in names if data.get(name) not in (None, "", [], {})})
    return given


def _secured(value: Any, *path: str) -> Any:
    """Return data in which variables replace masked values and texts that contain a secret."""
    if isinstance(value, dict):
        return {name: _secured(item, *path, name) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_secured(item, *path, str(index)) for index, item in enumerate(value)]
    if isinstance(value, str):
        if value == MASK:
            return variable_of(*path)
        return variable_of(*path, value=value) if _FORMS.search(value) else escaped(value)
    return value


def _plain(value: Any) -> Any:
    """Return data with texts that stand for themselves."""
    return _each(value, lambda item: escaped(item) if isinstance(item, str) else item)


def manifest_text(data: Data, comments: list[str]) -> str:
    """Return the TOML text of a manifest, after lines of comments. Empty tables at its top are left out."""
    document: Any = tomlkit.document()
    for line in comments:
        document.add(tomlkit.comment(line))
    for section, tables in data.items():
        if tables:
            own: Any = tomlkit.table(is_super_table=True)
            for name, fields in tables.items():
                own.add(name, _table(fields))
            document.add(tomlkit.nl())
            document.add(section, own)
    return str(tomlkit.dumps(document))


def _table(fields: Data) -> Any:
    table: Any = tomlkit.table()
    # A key after a table would belong to that table.
    for name, value in sorted(fields.items(), key=lambda field: _is_table(field[1])):
        if isinstance(value, Variable):
            item: Any = tomlkit.string(f"${{{value.name}}}")
            item.comment("secret")
            table.add(name, item)
        elif isinstance(value, dict):
            table.add(name, _table(value))
        elif _is_table(value):
            tables: Any = tomlkit.aot()
            for element in value:
                tables.append(_table(element))
            table.add(name, tables)
        else:
            table.add(name, value)
    return table


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
