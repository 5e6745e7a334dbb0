"""Cases of the frameworks' documents about testing, with their clients, whose application is behind a gateway.

Cases that look into the memory of the application are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from a2wsgi import WSGIMiddleware
from django.conf import UserSettingsHolder, global_settings, settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import Client, SimpleTestCase
from fastapi.testclient import TestClient
from werkzeug.test import Client as FlaskClient
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

from tests.support.cli import functiond_here
from tests.support.engine_process import engine_process
from tests.support.ports import free_port

pytestmark = pytest.mark.long

#: Folder of the packages of the tests, which the applications use in place of an index.
SITE = str(Path(httpx.__file__).parents[1])
FASTAPI = """
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import Cookie, FastAPI, Header, HTTPException, Response, UploadFile
from pydantic import create_model

items, db = {}, {"foo": {"id": "foo", "title": "Foo", "description": "There goes my hero"}}

@asynccontextmanager
async def lifespan(app):
    items["foo"] = {"name": "Fighters"}
    yield

Item = create_model("Item", id=str, title=str, description=(str | None, None))
app = FastAPI(lifespan=lifespan)
app.get("/")(lambda: {"message": "Tomato"})
app.get("/events/{item_id}")(lambda item_id: items[item_id])

def check(token, ok, status, problem):
    if token != "coneofsilence" or not ok:
        raise HTTPException(*((status, problem) if token == "coneofsilence" else (400, "Invalid X-Token header")))
@app.get("/items/{item_id}", response_model=Item)
async def read(item_id: str, x_token: Annotated[str, Header()]):
    return check(x_token, item_id in db, 404, "Item not found") or db[item_id]
@app.post("/items/")
def create(item: Item, x_token: Annotated[str, Header()]):
    return check(x_token, item.id not in db, 409, "Item already exists") or item
@app.post("/files")
async def files(response: Response, file: list[UploadFile], seen: Annotated[str, Cookie()] = "no"):
    response.set_cookie("seen", "yes")
    return {"seen": seen, "sizes": {each.filename: len(await each.read()) for each in file}}
"""
FLASK = """
from flask import Flask, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "of tests"
app.get("/posts")(lambda: "<h2>Hello, World!</h2>")
app.get("/users/me", endpoint="me")(lambda: {"username": session.get("user")})
app.get("/index", endpoint="index")(lambda: "index")
app.post("/graphql", endpoint="graphql")(lambda: {"data": {"user": {"name": "Flask", **request.json["variables"]}}})
@app.post("/user/<int:number>/edit")
def edit(number):
    return [number, request.form["name"], request.form["theme"], len(request.files["picture"].read())]
@app.post("/auth/login")
@app.get("/logout")
def change():
    session["user"] = request.form.get("username")
    return redirect(url_for("index"))
"""
DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils.translation import get_language

settings.configure(
    SECRET_KEY="of tests", ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.locale.LocaleMiddleware"],
)
app = get_wsgi_application()

def details(request):
    request.session.update(request.POST.dict())
    return JsonResponse({**request.session, **request.GET.dict()}, status=200 if "username" in request.session else 403)

def wishes(request):
    file = request.FILES["attachment"]
    return HttpResponse(f"{request.POST['name']} wishes {request.POST.getlist('choices')}, {file.name} {file.size}")

def echo(request):
    return JsonResponse({"method": request.method, "body": request.body.decode(), "type": request.content_type,
                         "accept": request.headers.get("Accept"), "language": get_language()})

urlpatterns = [
    path("login/", details), path("customer/details/", details, name="details"), path("customers/wishes/", wishes),
    path("echo/", echo), path("redirect_me/", lambda _: redirect("next")),
    path("next/", lambda _: redirect("details"), name="next"),
]
"""


def proxy(port: int, path: str) -> Any:
    """Return a WSGI application that forwards requests to a path of a gateway, and removes it from redirections."""

    @Request.application
    def forward(request: Request) -> Response:
        url = f"http://127.0.0.1:{port}{path}{quote(request.path)}?{request.query_string.decode()}"
        given, body = [*request.headers], request.get_data()
        reply = httpx.request(request.method, url, headers=given, content=body, timeout=60, trust_env=False)
        items = reply.headers.multi_items()
        headers = [(name, value.replace(path, "", 1) if name == "location" else value) for name, value in items]
        return Response(reply.content, reply.status_code, headers)

    return forward


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Deploy the applications, and yield the port of their gateway."""
    folder, port = tmp_path_factory.mktemp("frameworks"), free_port()
    settings = {"FUNCTIOND_PLUGINS__APIG__PORT": str(port)}
    with engine_process(folder, environ=settings) as engine, chdir(folder):
        for name, source in {"fastapi": FASTAPI, "flask": FLASK, "django": DJANGO}.items():
            Path(f"{name}_cases.py").write_text(f"import sys\nsys.path.insert(1, {SITE!r})\n{source}")
            target = ("--http", f"/{name}", "--no-install", f"{name}_cases:app")
            done = functiond_here("deploy", *target, url=engine.url)
            assert done.returncode == 0, done.stderr
        yield port


def test_items_of_the_document_of_fastapi(port: int) -> None:
    app: Any = WSGIMiddleware(proxy(port, "/fastapi"))
    client, token, bad = TestClient(app), {"X-Token": "coneofsilence"}, {"X-Token": "hailhydra"}
    item = {"id": "foobar", "title": "Foo Bar", "description": "The Foo Barters"}
    foo = {"id": "foo", "title": "Foo", "description": "There goes my hero"}
    for method, path, headers, body, status, answer in (
        ("GET", "/items/foo", token, None, 200, foo),
        ("GET", "/items/foo", bad, None, 400, {"detail": "Invalid X-Token header"}),
        ("GET", "/items/baz", token, None, 404, {"detail": "Item not found"}),
        ("POST", "/items/", token, item, 200, item),
        ("POST", "/items", token, item, 200, item),  # redirected
        ("POST", "/items/", bad, item, 400, {"detail": "Invalid X-Token header"}),
        ("POST", "/items/", token, {**item, "id": "foo"}, 409, {"detail": "Item already exists"}),
    ):
        response = client.request(method, path, headers=headers, json=body)
        assert (response.status_code, response.json()) == (status, answer)


async def test_events_files_and_async_clients_of_the_documents_of_fastapi(port: int) -> None:
    app: Any = WSGIMiddleware(proxy(port, "/fastapi"))
    files = [("file", ("a.txt", b"a")), ("file", ("b", bytes(5_000_000)))]
    with TestClient(app) as client:
        assert client.get("/events/foo").json() == {"name": "Fighters"}
        assert client.post("/files", files=files).json() == {"seen": "no", "sizes": {"a.txt": 1, "b": 5_000_000}}
        assert client.post("/files", files=files[:1]).json()["seen"] == "yes"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as ac:
        assert (await ac.get("/")).json() == {"message": "Tomato"}


def test_the_cases_of_the_document_of_flask(port: int) -> None:
    client: Any = FlaskClient(proxy(port, "/flask"))
    assert b"<h2>Hello, World!</h2>" in client.get("/posts").data
    data = {"name": "Flask", "theme": "dark", "picture": (BytesIO(b"png"), "picture.png")}
    assert client.post("/user/2/edit", data=data).json == [2, "Flask", "dark", 3]
    response = client.post("/graphql", json={"query": "query User($id: String!) {}", "variables": {"id": 2}})
    assert response.json["data"]["user"] == {"name": "Flask", "id": 2}
    client.post("/auth/login", data={"username": "flask"})
    assert client.get("/users/me").json["username"] == "flask"
    response = client.get("/logout", follow_redirects=True)
    assert (len(response.history), response.request.path) == (1, "/index")


def test_the_cases_of_the_document_of_django(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(settings), "_wrapped", UserSettingsHolder(global_settings))
    c, case, application = Client(), SimpleTestCase(), proxy(port, "/django")

    def handle(environ: dict[str, Any]) -> HttpResponse:
        content, status, headers = run_wsgi_app(application, environ)
        named = {name: value for name, value in headers if name.lower() != "set-cookie"}
        response = HttpResponse(content, status=int(status[:3]), headers=named)
        for cookie in headers.getlist("Set-Cookie"):
            response.cookies.load(cookie)
        response.wsgi_request, response.url = WSGIRequest(environ), headers.get("Location")
        return response

    c.handler = handle
    assert c.get("/customer/details/").status_code == 403
    assert c.post("/login/", {"username": "john", "password": "smith"}).status_code == 200
    response = c.get("/customer/details/", {"name": "fred", "age": 7})
    assert response.json() == {"username": "john", "password": "smith", "name": "fred", "age": "7"}
    response = c.get("/redirect_me/", follow=True)
    assert response.redirect_chain == [("/next/", 302), ("/customer/details/", 302)]
    case.assertRedirects(c.get("/next/"), "/customer/details/")
    (attachment := BytesIO(b"some text")).name = "doc.txt"
    response = c.post("/customers/wishes/", {"name": "fred", "choices": ["a", "b", "d"], "attachment": attachment})
    case.assertContains(response, "fred wishes ['a', 'b', 'd'], doc.txt 9")
    c.cookies.load({settings.LANGUAGE_COOKIE_NAME: "fr"})
    for method in ("post", "put", "patch", "delete"):
        seen = getattr(c, method)("/echo/", {"a": 1}, content_type="application/json", headers={"accept": "x/y"}).json()
        assert [*seen.values()] == [method.upper(), '{"a": 1}', "application/json", "x/y", "fr"]
    assert (c.options("/echo/").json()["method"], c.head("/echo/").content) == ("OPTIONS", b"")
