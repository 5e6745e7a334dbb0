"""Environment variables of functions that an export leaves out."""

from __future__ import annotations

import pytest

from engine.deploy.manifest.describing import holds_secret


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
def test_a_variable_whose_name_or_form_tells_a_secret_is_left_out(name: str, value: str) -> None:
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
def test_a_variable_that_tells_none_is_exported(name: str, value: str) -> None:
    assert not holds_secret(name, value)
