"""Keys of agencies in functions of each kind of runtime, with a real engine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.acceptance.sdk import PROJECT, SDK_WARNINGS, call, create, deploy, platform_on, urn_of
from tests.support.programs import needs

pytestmark = [*SDK_WARNINGS, needs("node")]

ACCESS, SECRET, TOKEN = "the-access-key", "the-secret-key", "the-token"
#: Functions that answer with the keys, in the order of the methods of a context, and whether the environment has one.
PYTHON = """
import os
def handler(event, c):
    temporary = [c.getSecurityAccessKey(), c.getSecuritySecretKey(), c.getSecurityToken()]
    return [c.getAccessKey(), c.getSecretKey(), *temporary, "the-secret-key" in str(dict(os.environ))]
"""
NODE = """
exports.handler = async (event, c) => [
  c.getAccessKey(), c.getSecretKey(), c.getSecurityAccessKey(), c.getSecuritySecretKey(), c.getSecurityToken(),
  JSON.stringify(process.env).includes("the-secret-key"),
];
"""
CUSTOM = """#!/usr/bin/env python3
import json, os, urllib.request
ROOT = f"http://{os.environ['RUNTIME_API_ADDR']}/v1/runtime/invocation/"
NAMES = ("Access-Key", "Secret-Key", "Security-Access-Key", "Security-Secret-Key", "Security-Token")
while True:
    headers = urllib.request.urlopen(ROOT + "request").headers
    keys = [headers["X-CFF-" + name] for name in NAMES] + ["the-secret-key" in str(dict(os.environ))]
    urllib.request.urlopen(ROOT + "response/" + headers["X-Cff-Request-Id"], json.dumps(keys).encode())
"""
HTTP = """#!/usr/bin/env python3
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        keys = [str(self.headers["X-CFF-Security-" + name]) for name in ("Access-Key", "Secret-Key", "Token")]
        self.wfile.write(" ".join(keys).encode())
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
GIVEN, NONE = [ACCESS, SECRET, ACCESS, SECRET, TOKEN, False], [*[""] * 5, False]
GET = {"httpMethod": "GET", "path": "/", "headers": {"X-CFF-Security-Token": "mine"}, "body": ""}


def test_a_function_gets_the_keys_of_the_agency_that_it_names(tmp_path: Path) -> None:
    keys = {"ACCESS_KEY": ACCESS, "SECRET_KEY": SECRET, "SECURITY_TOKEN": TOKEN}
    agencies = {"A": {**keys, "PROJECTS": f"p2,{PROJECT}"}, "B": {**keys, "PROJECTS": "p2"}}
    settings = {
        f"FUNCTIOND_AGENCIES__{name}__{key}": agencies[name][key] for name in agencies for key in agencies[name]
    }
    with platform_on(tmp_path, **settings) as platform:
        create(platform, "node", NODE, runtime="Node.js18.15", xrole="b", app_xrole="a")
        for name, role in (("python", "a"), ("foreign", "b"), ("unknown", "c")):
            create(platform, name, PYTHON, xrole=role)
        for name, runtime, source in (("custom", "Custom", CUSTOM), ("http", "http", HTTP), ("asks", "http", HTTP)):
            deploy(platform, name, runtime, {"bootstrap": source}, xrole="a")
        path = f"/v2/{PROJECT}/fgs/functions/{urn_of('asks')}/config"
        assert platform.engine.ask("PATCH", path, {"enable_auth_in_header": True}).status == 200

        names = ("python", "node", "custom", "foreign", "unknown")
        got = [json.loads(call(platform, name, {}).result) for name in names]
        of_server = [json.loads(call(platform, name, GET).result)["body"] for name in ("asks", "http")]

        assert got == [GIVEN, GIVEN, GIVEN, NONE, NONE]
        assert [*map(base64.b64decode, of_server)] == [b"the-access-key the-secret-key the-token", b"None None mine"]
        shown = platform.engine.ask("GET", path).body.decode()
        listed = platform.engine.ask("GET", f"/v2/{PROJECT}/fgs/service-trusted-agencies").json
        elsewhere = platform.engine.ask("GET", "/v2/p2/fgs/service-trusted-agencies").json
    assert [[each["name"] for each in agencies] for agencies in (listed, elsewhere)] == [["a", "b", "c"], ["a", "b"]]
    assert SECRET not in "".join(platform.engine.log) + shown
