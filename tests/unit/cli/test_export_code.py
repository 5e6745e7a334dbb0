"""Code that an export writes into a folder, and environment variables that it leaves out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine.cli.export import _write_code
from engine.deploy.client import Client
from engine.deploy.manifest.describing import holds_secret
from engine.deploy.manifest.project import Project
from engine.errors import UsageError


class Engine(Client):
    """Engine with one function, whose code is ``x``."""

    def get(self, path: str = "", **query: object) -> Any:
        if path.endswith("/code"):
            return {"func_code": {"file": base64.b64encode(b"x").decode()}}
        return [] if path.startswith("/interpreters") else {"functions": [self.function], "count": 1}

    def __init__(self, name: str) -> None:
        super().__init__("http://127.0.0.1:1", "p", "")
        self.function = {
            "func_urn": f"urn:fss:r:p:function:default:{name}:latest",
            "code_type": "inline",
            "code_filename": "index.py",
            "runtime": "http",
            "handler": "any",
        }


@pytest.mark.parametrize("name", ["../../x", "/{}/x", "..", "a/../../../x"])
def test_a_function_whose_name_leads_out_of_the_folder_is_not_written(tmp_path: Path, name: str) -> None:
    (start := tmp_path / "a" / "b").mkdir(parents=True)
    name = name.format(tmp_path)

    with pytest.raises(UsageError, match="which is no valid name"):
        _write_code({"functions": {name: {}}}, Project(Engine(name)), start / "code", start)

    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


# --- environment variables that are left out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "x") for name in ("API_KEY", "apiKey", "AWS_ACCESS_KEY_ID", "DB_PASS", "PGPASSWORD", "SENTRY_DSN")),
        *(
            (name, "x")
            for name in ("GITHUB_TOKEN", "BASIC_AUTH", "SLACK_WEBHOOK_URL", "CLIENT_SECRETS", "SIGNING_KEYS")
        ),
        ("DATABASE_URL", "postgres://user:password@db/shop"),
        ("DATABASE", "host=db password = x"),
        ("STORE", "AccountName=a;AccountKey=b=="),
        ("LINK", "https://store/file?sig=abc"),
        ("CONFIG", '{"api_token": "x"}'),
        ("CERTIFICATE", "-----BEGIN RSA PRIVATE KEY-----"),
        ("HEADER", "Bearer abc"),
    ],
)
def test_a_variable_whose_name_or_form_suggests_a_secret_is_left_out(name: str, value: str) -> None:
    assert holds_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUCKET", "pictures"),
        ("DATABASE_URL", "postgres://db:5432/shop"),
        ("AUTHOR", "a@example.com"),
        ("KEYSPACE", "shop"),
        ("LOG_LEVEL", "DEBUG"),
        ("URL", "https://example.com/a?page=1"),
    ],
)
def test_a_variable_without_a_secret_is_exported(name: str, value: str) -> None:
    assert not holds_secret(name, value)
