"""Plugins and the settings of their services."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from msgspec import Meta, Struct

from engine import DeliveryContext, InvalidField, PendingDelivery, Plugin, SettingsError
from engine.config.plugin_registry import Registry, load_plugins
from engine.config.settings import load_settings
from engine.model import DestinationSpec


class Library(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    boards: Annotated[tuple[int, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if len(set(self.boards)) < len(self.boards):
            raise ValueError("a board is there twice")


class Service(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    REPLACED: ClassVar[Mapping[str, str]] = {"label": "list labels in plugins.box.labels"}

    endpoint: str = ""
    tries: int = 3
    labels: tuple[str, ...] = ()
    racks: dict[str, Library] = {}


class NoLinks:
    def open(self, link: str) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError


class Nowhere:
    def __init__(self, param: Library) -> None: ...

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        raise NotImplementedError


BOXES = Plugin(kinds=("BOX", "CRATE"), service=Service)


def test_a_service_has_the_settings_of_its_table() -> None:
    registry = Registry([BOXES], {"box": {"endpoint": "http://there", "tries": "5"}})

    assert registry.service(BOXES) == Service(endpoint="http://there", tries=5)


def test_lists_of_the_environment_are_texts_with_commas() -> None:
    environ = {
        "FUNCTIOND_PLUGINS__BOX__LABELS": "red, blue",
        "FUNCTIOND_PLUGINS__BOX__RACKS__TOP__BOARDS": "1,2",
        "FUNCTIOND_PLUGINS__BOX__ENDPOINT": "a,b",
    }

    service = Registry([BOXES], load_settings(environ=environ).plugins).service(BOXES)

    assert (service.labels, service.racks, service.endpoint) == (
        ("red", "blue"),
        {"top": Library(boards=(1, 2))},
        "a,b",
    )


def test_a_service_without_a_table_has_its_defaults() -> None:
    assert Registry([BOXES]).service(BOXES) == Service()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"bok": {}}, r"unknown setting plugins.bok: did you mean plugins.box\?"),
        ({"rack": {}}, "unknown setting plugins.rack: known: box"),
        ({"box": {"tries": "many"}}, "plugins.box.tries: must be a whole number"),
        ({"box": {"endpont": 1}}, r"plugins.box.endpont: no such key: did you mean endpoint\?"),
        ({"box": {"label": ["red"]}}, "plugins.box.label has been replaced: list labels in plugins.box.labels"),
        ({"box": {"lid": 1}}, "plugins.box.lid: no such key: expected one of endpoint, "),
    ],
)
def test_settings_that_no_service_knows_are_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Registry([BOXES], tables)


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("{}", "param.boards is missing: it is required"),
        ('{"boards": []}', "param.boards is []: must be a list of 1 entries or more"),
        ('{"boards": [1, "x"]}', "param.boards[1] is 'x': must be a whole number"),
        ("[]", "param is []: must be an object"),
        ('{"boards": [1, 1]}', "param is {'boards': [1, 1]}: a board is there twice"),
        ('{"board": 1, "boards": [1]}', "param.board is 1: no such key: did you mean boards?"),
    ],
)
def test_an_invalid_destination_is_refused_with_field_value_and_range(param: str, told: str) -> None:
    racks = Plugin(kinds=("RACK",), param=Library, destination=Nowhere)

    with pytest.raises(InvalidField) as caught:
        Registry([racks]).destination(DestinationSpec(destination="RACK", param=param))

    assert str(caught.value) == told


def test_an_installed_package_brings_plugins_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "racks_of_ours.py").write_text("from engine import Plugin\nplugin = Plugin(kinds=('OURS',))\n")
    (tmp_path / "racks-1.dist-info").mkdir()
    (tmp_path / "racks-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: racks\nVersion: 1\n")
    entry = "[functiond.plugins]\nours = racks_of_ours:plugin\n"
    (tmp_path / "racks-1.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(tmp_path)

    kinds = {kind for plugin in load_plugins() for kind in plugin.kinds}

    assert {"OURS", "TIMER"} <= kinds


def test_code_lies_where_the_first_configured_plugin_says() -> None:
    links = NoLinks()
    mute = Plugin(kinds=("MUTE",), service=Service, code_links=lambda service: None)
    speaking = Plugin(kinds=("BOX",), service=Service, code_links=lambda service: links if service.endpoint else None)

    assert Registry([mute, speaking]).code_links is None
    assert Registry([mute, speaking], {"box": {"endpoint": "x"}}).code_links is links
