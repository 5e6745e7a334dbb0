from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.show_settings import COMPUTED, all_settings
from engine.config.settings import COMMAND_VARIABLES, Settings, load_settings
from engine.errors import SettingsError

RAY = "[executor.nodes]\nlisten = '10.0.0.1:8443'\n"
NODES = "[executor.nodes]\nlisten = '10.0.0.1:8443'\n[executor.nodes.agents]\nbig = ['gpu', 'fast']\n"


def toml(folder: Path, text: str) -> Path:
    file = folder / "functiond.toml"
    file.write_text(text)
    return file


def test_without_any_source_the_defaults_hold() -> None:
    assert load_settings() == Settings()


def test_the_command_line_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, "[http]\nport = 1\nregion = 'file'\n[queue]\npriority_step = 5\n")
    environ = {"FUNCTIOND_HTTP__PORT": "2", "FUNCTIOND_HTTP__REGION": "environment"}

    settings = load_settings(file=file, environ=environ, overrides={"http.port": 3})

    assert (settings.http.port, settings.http.region, settings.queue.priority_step) == (3, "environment", 5)


def test_an_override_of_none_is_passed_over() -> None:
    assert load_settings(environ={"FUNCTIOND_GRACE": "7"}, overrides={"grace": None}).grace == 7


def test_the_environment_carries_numbers_flags_and_lists_as_text() -> None:
    environ = {
        "FUNCTIOND_QUEUE__HOST_IDLE_GATE": "true",
        "FUNCTIOND_RETRY__JITTER": "0.5",
        "FUNCTIOND_PLUGIN": "one, two,",
        "FUNCTIOND_SHARED_DEPENDENCIES": "tools/numpy, tools/pandas",
        "FUNCTIOND_EXECUTOR__LONG_TIME_FUNCTIONS": "*",
        "OTHER": "x",
    }

    settings = load_settings(environ=environ)

    assert (settings.queue.host_idle_gate, settings.retry.jitter) == (True, 0.5)
    assert settings.shared_dependencies == ("tools/numpy", "tools/pandas")
    assert (settings.plugin, settings.executor.long_time_functions) == (("one", "two"), ("*",))


def test_variables_of_the_command_line_are_no_settings() -> None:
    assert load_settings(environ=dict.fromkeys(COMMAND_VARIABLES, "x")) == Settings()


def test_tables_of_plugins_stay_as_they_are(tmp_path: Path) -> None:
    file = toml(tmp_path, "[plugins.kafka.instances.one]\nbrokers = ['a']\n")

    settings = load_settings(file=file, environ={"FUNCTIOND_PLUGINS__KAFKA__USER": "me"})

    assert settings.plugins == {"kafka": {"instances": {"one": {"brokers": ["a"]}}, "user": "me"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nprot = 1\n", "unknown setting http.prot: did you mean http.port?"),
        ("[htp]\n", "unknown setting htp: did you mean http?"),
        ("zzz = 1\n", "unknown setting zzz: known: "),
        ("port = 1\n", "unknown setting port: did you mean http.port?"),
        ("[http]\nport = 70000\n", "http.port is 70000: must be a whole number from 0 to 65535"),
        ("[queue]\npriority_step = 'x'\n", "queue.priority_step is 'x': must be a number, 0 or more"),
        ("[retry]\nlongest = 700000\n", "retry.longest is 700000: must be a number from 0 to 302400"),
        ("[log]\nformat = 'xml'\n", "log.format is 'xml': must be one of console, json"),
        ("http = 1\n", "http is 1: must be an object"),
        ("[executor]\nslots = 2\n", "executor.sync_slots must be smaller than executor.slots"),
        ("[http\n", "is not valid TOML: "),
        (
            "[http]\ntrusted_proxies = ['proxy']\n",
            "http.trusted_proxies: 'proxy' does not .*; use addresses",
        ),
        ("[http]\ntrusted_proxies = ['10.1.0.0/8']\n", "10.1.0.0/8 has host bits set; use addresses and networks"),
        ("[http]\nbody_timeout = 0\n", "http.body_timeout is 0"),
        ("[executor.nodes]\nlisten = '10.0.0.1'\n", "executor.nodes.listen must be address:port"),
        ("[executor.nodes.agents]\na = []\n", "executor.nodes.agents needs executor.nodes.listen"),
        (f"{NODES}B2 = []\n", "executor.nodes.agents: 'B2' must be 1 to 63 of a-z, 0-9 and -"),
        ("[executor.nodes]\nkey = 'k.pem'\n", "set executor.nodes.certificate and executor.nodes.key, or neither"),
        (f"{NODES}[executor.nodes.needs]\n'p/f' = ['ssd']\n", "no agent has all labels of p/f: ssd"),
        ("[executor.nodes]\nlease = 0.5\n", "executor.nodes.lease is 0.5: must be a number from 1 to 60"),
        (f"{RAY}ray = '10.0.0.9'\n", "executor.nodes.ray must be HOST:PORT of the head"),
        ("[executor.nodes]\nray = 'h:1'\n", "executor.nodes.ray needs executor.nodes.listen"),
        (f"{RAY}ray = 'h:1'\n[executor.nodes.agents]\na = []\n", "and excludes executor.nodes.agents"),
        ("[executor.nodes]\nray = 'h:1'\nlisten = '0.0.0.0:2'\n", "executor.nodes.ray needs executor.nodes.url"),
        (f"{RAY}ray = 'h:1'\n[executor.nodes.needs]\n'p/f' = ['gpu']\n", "label 'gpu' must be key=value"),
        (f"{RAY}[executor.nodes.gpus.t4]\nmemory = 1\n", "executor.nodes.gpus needs executor.nodes.ray"),
        ("[executor.nodes]\nlisten = 'h:1'\nslots = 2\n", "sync_slots must be smaller than executor.nodes.slots"),
        ("shared_dependencies = ['numpy']\n", "shared_dependencies.* is 'numpy': must be project/name"),
    ],
)
def test_an_invalid_file_is_refused_with_its_problem(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(file=toml(tmp_path, text))


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*none.toml: No such file"):
        load_settings(file=tmp_path / "none.toml")
    file = tmp_path / "functiond.toml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingsError, match="is not valid TOML"):
        load_settings(file=file)


@pytest.mark.parametrize(("value", "new"), [("false", "none"), ("true", "host")])
def test_an_old_value_is_refused_with_the_new_one(tmp_path: Path, value: str, new: str) -> None:
    said = f'the setting executor.network = {value} is now executor.network = "{new}"'

    with pytest.raises(SettingsError, match=said):
        load_settings(file=toml(tmp_path, f"[executor]\nnetwork = {value}\n"))
    with pytest.raises(SettingsError, match=said):
        load_settings(environ={"FUNCTIOND_EXECUTOR__NETWORK": value})


def test_ports_of_the_host_are_a_list_or_a_table_by_project(tmp_path: Path) -> None:
    listed = load_settings(environ={"FUNCTIOND_EXECUTOR__HOST_PORTS": "5432,6379"}).executor.host_ports
    by_project = load_settings(file=toml(tmp_path, "[executor.host_ports]\nshop = [5432]\n")).executor.host_ports

    assert (listed, by_project) == ((5432, 6379), {"shop": (5432,)})


def test_nodes_are_named_with_their_labels_in_the_file_or_in_variables(tmp_path: Path) -> None:
    file = toml(tmp_path, f"{NODES}[executor.nodes.needs]\n'shop/train' = ['gpu']\n")

    executor = load_settings(file=file, environ={"FUNCTIOND_EXECUTOR__NODES__AGENTS__SMALL": "ssd, eu"}).executor

    assert executor.nodes.agents == {"big": ("gpu", "fast"), "small": ("ssd", "eu")}
    assert executor.nodes.needs == {"shop/train": ("gpu",)}


def test_kinds_of_gpu_have_names_with_memory_and_labels(tmp_path: Path) -> None:
    table = "[executor.nodes.gpus.nvidia-t4]\nmemory = 16384\nlabels = ['ray.io/accelerator-type=T4']\n"
    nodes = load_settings(file=toml(tmp_path, f"{RAY}ray = 'head:6379'\n{table}")).executor.nodes

    assert (nodes.gpus["nvidia-t4"].memory, nodes.gpus["nvidia-t4"].labels) == (16384, ("ray.io/accelerator-type=T4",))


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_removed_setting_is_refused_with_what_to_do(tmp_path: Path, value: str) -> None:
    said = r"^the setting http\.update_resets has been removed: .*: delete the setting$"

    with pytest.raises(SettingsError, match=said):
        load_settings(file=toml(tmp_path, f"[http]\nupdate_resets = {value}\n"))
    with pytest.raises(SettingsError, match=said):
        load_settings(environ={"FUNCTIOND_HTTP__UPDATE_RESETS": value})


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"FUNCTIOND_QUEUE__AGING": "1"}, "queue.aging"),
        ({"FUNCTIOND_AGEING": "1"}, "ageing"),
        ({"FUNCTIOND_HTTP__PORT__X": "1"}, "http.port"),
        ({"FUNCTIOND_HTTP": "1", "FUNCTIOND_HTTP__PORT": "1"}, "http"),
        ({"FUNCTIOND_AUTH__KEYS": "a secret"}, r"^auth\.keys\[0\]: must be an object$"),
        ({"FUNCTIOND_AUTH": "a secret"}, r"^auth: must be an object$"),
        ({"FUNCTIOND_AGENCIES__A__SECRET_KEY": "a secret"}, r"^agencies\S*: must be text of 1 to 8192 char"),
    ],
    ids=["no setting", "no section", "a plain value with parts", "a section with a plain value", "unshown", "all", "a"],
)
def test_an_invalid_variable_is_refused(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_settings(environ=environ)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.com", ""])
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="is reachable from other machines"):
        load_settings(overrides={"http.host": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_address_of_this_machine_is_taken(host: str) -> None:
    assert load_settings(overrides={"http.host": host}).http.host == host


def test_every_setting_listed_can_be_set_by_its_variable() -> None:
    settings = [setting for setting in all_settings() if "<" not in setting.name]
    given = {setting.variable: _sample(setting.type, setting.default) for setting in settings}

    load_settings(environ=given)

    assert len(given) > 35


def _sample(kind: str, default: str) -> str:
    return {"empty": ""}.get(default, default.partition(" ")[0]) if "texts" not in kind else "a,b"


def test_listed_defaults_are_those_that_hold() -> None:
    listed = {setting.name: setting.default for setting in all_settings()}

    assert (listed["http.port"], listed["queue.host_idle_gate"], listed["retry.jitter"]) == ("8080", "false", "0.2")
    assert (listed["executor.log_size"], listed["plugin"]) == ("1048576 (1 MiB)", "empty")
    assert set(COMPUTED) <= set(listed)
