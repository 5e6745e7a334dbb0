"""Credentials in settings and in a separate file: required file mode, and secrets that are never shown."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from engine.auth.credentials import AccessKey, Token
from engine.config.settings import Settings, load_settings
from engine.errors import SettingsError

SECRET = "the-secret-of-a-key"
TOKEN = "a-token-of-a-project"
KEYS = f"[[keys]]\naccess = 'AK1'\nsecret = '{SECRET}'\nproject = 'p1'\n"
TOKENS = f"[[tokens]]\ntoken = '{TOKEN}'\nproject = 'p1'\n"


def private(folder: Path, text: str, mode: int = 0o600, name: str = "keys.toml") -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return file


def load(file: Path, **overrides: object) -> Settings:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(environ={"FUNCTIOND_AUTH__FILE": str(file)}, overrides=named)


def test_a_file_brings_keys_and_tokens(tmp_path: Path) -> None:
    more = "token = 'security-token-of-temp'\nexpires = 2026-01-31T00:00:00Z\n"

    auth = load(private(tmp_path, KEYS + more + TOKENS)).auth

    assert auth.required
    assert [(key.access, key.secret, key.token) for key in auth.keys] == [("AK1", SECRET, "security-token-of-temp")]
    assert auth.keys[0].expires is not None
    assert [token.token for token in auth.tokens] == [TOKEN]


def test_an_operator_has_no_project(tmp_path: Path) -> None:
    auth = load(private(tmp_path, f"[[tokens]]\ntoken = '{TOKEN}'\nrole = 'operator'\n")).auth

    assert [(token.project, token.role) for token in auth.tokens] == [("", "operator")]


def test_credentials_of_the_file_and_of_the_settings_are_valid_together(tmp_path: Path) -> None:
    file = private(tmp_path, KEYS)
    inline = KEYS.replace("[[keys]]", "[[auth.keys]]").replace("AK1", "AK2")
    settings = private(tmp_path, f"auth.file = '{file}'\n{inline}", name="functiond.toml")

    auth = load_settings(file=settings).auth

    assert [key.access for key in auth.keys] == ["AK2", "AK1"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o601])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path, KEYS, mode)

    with pytest.raises(SettingsError, match=f"others have access .mode {mode:04o}.: chmod 600 {file}"):
        load(file)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_ours_alone_is_taken(tmp_path: Path, mode: int) -> None:
    assert load(private(tmp_path, KEYS, mode)).auth.required


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = private(tmp_path, KEYS)
    os.chown(file, 12345, 12345)

    with pytest.raises(SettingsError, match="belongs to user 12345: change its owner to user 0"):
        load(file)


def test_settings_that_hold_keys_are_as_private(tmp_path: Path) -> None:
    file = private(tmp_path, KEYS.replace("[[keys]]", "[[auth.keys]]"), 0o644)

    with pytest.raises(SettingsError, match="chmod 600"):
        load_settings(file=file)
    file.chmod(0o600)
    assert load_settings(file=file).auth.required


@pytest.mark.parametrize(
    "line", ["apps.a.app_code = 'c'", "apps.a.secret = 's'", "token = 't'", "kafka_password = 'p'"]
)
def test_settings_that_hold_a_secret_of_a_plugin_are_as_private(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="chmod 600"):
        load_settings(file=private(tmp_path, f"[plugins.some]\n{line}\n", 0o644))


def test_settings_without_keys_may_be_read_by_all(tmp_path: Path) -> None:
    keys = private(tmp_path, KEYS)

    assert load_settings(file=private(tmp_path, f"auth.file = '{keys}'\n", 0o644, "functiond.toml")).auth.required


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (KEYS.replace("project = 'p1'\n", ""), "missing required field `project`"),
        (KEYS + "role = 'operator'\n", "leave it out for the role operator"),
        (KEYS.replace("secret", "sercet"), "unknown field `sercet`"),
        (KEYS.replace(SECRET, "short"), r"length >= 16 - at `\$.keys\[0\].secret`"),
        (KEYS.replace("AK1", "A,1"), r"at `\$.keys\[0\].access`"),
        (KEYS.replace("p1", "p/1"), r"at `\$.keys\[0\].project`"),
        (KEYS + "role = 'owner'\n", r"Invalid enum value 'owner' - at `\$.keys\[0\].role`"),
        (KEYS + "role = 'invoke'\npayloads = true\n", "payloads is for the role read"),
        (KEYS + "payloads = true\n", "leave it out for the role admin"),
        (KEYS + "expires = 2026-01-31T00:00:00\n", "timezone"),
        ("[[key]]\n", "unknown field `key`"),
        ("keys = 1\n", r"at `\$.keys`"),
        ("[[keys\n", "is not valid TOML"),
        (KEYS + KEYS, "the access key AK1 is configured twice"),
        (TOKENS + TOKENS, "a token is configured twice"),
    ],
)
def test_an_invalid_file_is_refused_without_showing_secrets(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        load(private(tmp_path, text))

    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("what", ["nothing", "folder", "pipe"])
def test_a_path_without_a_readable_file_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(SettingsError, match=r"cannot read auth.file .*: (No such file|Is a dir)|must be a regular"):
        load(tmp_path / what)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "engine.example"])
def test_with_credentials_any_address_is_taken(tmp_path: Path, host: str) -> None:
    assert load(private(tmp_path, TOKENS), http__host=host).http.host == host


def test_keys_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    settings = private(tmp_path, f"[auth]\nfile = '{private(tmp_path, KEYS)}'\nkeys = 1\n", name="functiond.toml")

    with pytest.raises(SettingsError, match=r"auth\.keys: must be a list"):
        load_settings(file=settings)
    with pytest.raises(SettingsError, match=r"auth\.file: must be text"):
        load_settings(overrides={"auth.file": 5})


def test_a_file_without_any_entry_makes_no_address_safe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0 is reachable from other machines"):
        load(private(tmp_path, ""), http__host="0.0.0.0")


def test_no_representation_shows_a_secret() -> None:
    key = AccessKey(access="AK1", secret=SECRET, project="p1", token=TOKEN)
    settings = msgspec.structs.replace(Settings().auth, keys=(key,), tokens=(Token(token=TOKEN, project="p1"),))

    shown = f"{settings!r} {settings} {[key]}"

    assert SECRET not in shown
    assert TOKEN not in shown
    assert "AK1" in shown
