"""Pages of a function's code, the first of its tabs: files, editor of inline code, upload, dependencies, pause."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any
from urllib.parse import quote

import anyio.to_thread
import msgspec
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.code.browsing import FileText, PackageFiles, is_editable, view_package, with_file, with_line_ends
from engine.code.checks import Find, problem_of
from engine.code.default_code import inline_file
from engine.code.store import INLINE_LIMIT, PACKAGE_LIMIT, CodeStore
from engine.errors import AccessDenied, CodeChanged, FunctiondError, InvalidField, InvalidRequest, NotFound
from engine.http.api.large_replies import PIECE, whole_file
from engine.http.api.routing import Call
from engine.http.console.forms import Form, errors_of
from engine.http.console.functions.frame import NOT_SENT, FunctionFrame, PauseForm
from engine.http.console.pages import ADMIN, HEADERS, PageFamily, get, may, post, see_other
from engine.http.console.paths import FUNCTION, QUEUES, path_of
from engine.model import Dependency, Function
from engine.resources.dependencies import Dependencies

CONCURRENCY = "/configuration/concurrency"
_SHOW, _UPDATE = "ShowFunctionCode", "UpdateFunctionCode"
_CHANGED = "the code was changed since this page was opened; copy your text, reload the page, and edit again"


class Shown(Struct, frozen=True, kw_only=True):
    """Code of a version, as far as the page shows it."""

    files: PackageFiles | None = None  #: None: they cannot be read, or the reader may not see them
    path: str = ""  #: file that is shown; empty: none
    text: FileText = FileText()
    problem: str = ""  #: reason why the files cannot be read
    warning: str = ""  #: reason why the code cannot run


class CodePage(PageFamily):
    def __init__(self, frame: FunctionFrame, codes: CodeStore, dependencies: Dependencies, find: Find) -> None:
        self._frame, self._codes, self._dependencies = frame, codes, dependencies
        self._find = find

    @post("ConsolePauseFunction", f"{FUNCTION}/pause")
    async def pause(self, call: Call, form: Form) -> Reply:
        """Pause the function, or change the reason of its pause, by a form of its pages or of the queues."""
        function, reason = self._frame.function_of(call), form.text("pause_reason", form.text("reason"))
        try:
            await self._frame.send(call, "POST", function, "/pause", {"reason": reason})
        except FunctiondError as error:
            return await self._show(call, pause=PauseForm(reason=reason, error="; ".join(errors_of(error).values())))
        return see_other(_origin(function, form), "Paused. Requests are accepted and wait.")

    @post("ConsoleResumeFunction", f"{FUNCTION}/resume")
    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._frame.send(call, "POST", function, "/resume")
        return see_other(_origin(function, form), "Resumed.")

    @get("ConsoleFunctionPackage", f"{FUNCTION}/package", ADMIN)
    async def download(self, call: Call) -> Reply:
        """Send the package of a version as it was received: a zip, or the source text of inline code."""
        code = self._frame.version_of(call).code
        name = re.sub(r"[^\w.-]", "_", self._frame.function_of(call).name, flags=re.ASCII)
        inline = code.kind == "inline"
        filename = re.sub(r"[^\w.-]", "_", code.filename, flags=re.ASCII) if inline else f"{name}.zip"
        file = await anyio.to_thread.run_sync(self._codes.received(code).open, "rb")
        named = (b"Content-Disposition", f'attachment; filename="{filename}"'.encode())
        kind = b"text/plain; charset=utf-8" if inline else b"application/zip"
        return whole_file(file, code.size, kind, *HEADERS, named)

    @post("ConsoleSaveCode", f"{FUNCTION}/code")
    async def save(self, call: Call, form: Form) -> Reply:
        """Store inline code."""
        function, code = self._frame.function_of(call), form.raw("code")
        field = "code" if function.code.kind == "inline" else "inline"
        try:
            if not code:
                raise InvalidField("func_code", code, "write some code; an empty file has no handler")
            if function.code.kind == "inline":
                code = with_line_ends(code, (await self._codes.original(function.code)).decode(errors="replace"))
            # The suffix of the stored file's name tells a module of Node.js from a script.
            filename = function.code.filename if function.code.kind == "inline" else ""
            await self._replace(call, form, with_text({"code_filename": filename}, code))
        except FunctiondError as error:
            return await self._show(call, typed=_typed(field, code, form), errors=_beside(field, error))
        return see_other(path_of(function), "Saved. The next invocation runs this code.")

    @post("ConsoleSaveFile", f"{FUNCTION}/code/file")
    async def save_file(self, call: Call, form: Form) -> Reply:
        """Store the package with other text in the file that the query names."""
        if not may(call, _UPDATE):  # packing takes some seconds, so the operation must not be the first to check
            raise AccessDenied(f"your role may not use {_UPDATE}")
        function, path, text = self._frame.function_of(call), call.text("file"), form.raw("code")
        package = self._codes.received(function.code)
        try:
            if form.text("digest") != function.code.digest:  # packing takes some seconds
                raise CodeChanged(function.code.digest)
            if not is_editable(function.code):
                raise InvalidRequest("this package is too large to be edited here; upload a new one")
            file = await self._codes.temporary_file()
            with file:
                if not await anyio.to_thread.run_sync(with_file, package, file, path, text):
                    raise NotFound(f"the code has no file {path[:200]}")
                await self._replace(call, form, with_package({"code_filename": function.code.filename}, _pieces(file)))
        except FunctiondError as error:
            return await self._show(call, typed=_typed("code", text, form), errors=_beside("code", error))
        page = path_of(function, f"?file={quote(path)}")
        return see_other(page, f"Saved {path}. The next invocation runs this code.")

    @post("ConsoleUploadPackage", f"{FUNCTION}/package")
    async def upload(self, call: Call, form: Form) -> Reply:
        """Store a zip package, which is passed on while it arrives."""
        function, file = self._frame.function_of(call), form.file
        if file is None:
            return await self._show(call, errors={"package": "choose a zip file"})
        body = with_package({"code_filename": file.filename[:255]}, file.pieces)
        try:
            await self._frame.send(call, "PUT", function, "/code", body, keep_body=False)
        except FunctiondError as error:
            await file.discard()
            return await self._show(call, errors=_beside("package", error))
        return see_other(path_of(function), "Uploaded. The next invocation runs this code.")

    @post("ConsoleChooseDependencies", f"{FUNCTION}/dependencies")
    async def choose_dependencies(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        body = {"depend_version_list": form.all("dependency")}
        try:
            await self._frame.send(call, "PATCH", function, "/config", body)
        except FunctiondError as error:
            return await self._show(call, errors=_beside("dependency", error))
        return see_other(path_of(function), "Dependencies saved.")

    async def _replace(self, call: Call, form: Form, body: Any) -> None:
        """Replace the code that the form was made from. Raises CodeChanged if the function has other code."""
        condition = ((b"if-match", f'"{form.text("digest")}"'.encode()),)
        function = self._frame.function_of(call)
        await self._frame.send(call, "PUT", function, "/code", body, condition, keep_body=False)

    @get("ConsoleFunction", FUNCTION)
    async def _show(
        self,
        call: Call,
        typed: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
        pause: PauseForm = NOT_SENT,
    ) -> Reply:
        version = self._frame.version_of(call)
        editable = may(call, _UPDATE) and not call.text("qualifier")
        return await self._frame.show(
            call,
            "functions/code.html",
            tab="",
            http_status=400 if errors or pause.error else 200,
            pause=pause,
            shown=version,
            qualifier=call.text("qualifier"),
            qualifiers=self._frame.qualifiers(call),
            code=await self._code(call, version),
            readable=may(call, _SHOW),
            editable=editable,
            typed=typed or {},
            packable=is_editable(version.code),
            errors=defaultdict(str, errors or {}),
            choices=self._choices(version) if editable else [],
            inline_limit=INLINE_LIMIT,
            package_limit=PACKAGE_LIMIT,
        )

    async def _code(self, call: Call, version: Function) -> Shown:
        """Return the files of a version, and the text of the one that the query names, or of the handler's."""
        if not may(call, _SHOW):
            return Shown()
        code, package = version.code, self._codes.received(version.code)
        asked = call.text("file")
        try:
            view = await anyio.to_thread.run_sync(
                view_package, package, code, lambda files: asked or _first(files, version)
            )
        except OSError as error:
            return Shown(problem=error.strerror or str(error))
        if view.text is None:
            raise NotFound(f"the code has no file {view.path[:200]}")
        warning = await problem_of(version, view, self._find) if may(call, _UPDATE) else ""
        return Shown(files=view.files, path=view.path, text=view.text, warning=warning)

    def _choices(self, function: Function) -> list[tuple[Dependency, bool]]:
        """Return the dependencies that a function may use, each with whether it does, those in use first."""
        used = {dependency.id for dependency in function.dependencies}
        others = self._dependencies.list(function.project, runtime=function.runtime)
        return [
            *((dependency, True) for dependency in function.dependencies),
            *((other, False) for other in others if other.id not in used),
        ]


def _origin(function: Function, form: Form) -> str:
    """Return the page with the form that pauses or resumes a function."""
    pages = {"queues": QUEUES.format(project_id=function.project), "concurrency": path_of(function, CONCURRENCY)}
    return pages.get(form.text("back"), path_of(function))


def _typed(field: str, text: str, form: Form) -> dict[str, str]:
    """Return what was typed, for the code that it was made from: a further attempt must not replace another one."""
    return {field: text, "digest": form.text("digest")}


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await anyio.to_thread.run_sync(file.read, PIECE):
        yield piece


def _first(files: PackageFiles, version: Function) -> str:
    """Return the path of the file that the handler names, else of the only file; empty if there is neither."""
    paths = [file.path for file in files.files]
    try:
        handler = inline_file(version.handler, version.runtime)[0]
    except InvalidField:
        handler = ""
    return handler if handler in paths else paths[0] if len(paths) == 1 else ""


def _beside(field: str, error: FunctiondError) -> dict[str, str]:
    """Return the message of an error beside the field of the code."""
    if isinstance(error, CodeChanged):
        return {field: _CHANGED}
    errors: dict[str, Any] = dict(errors_of(error))
    return {field: errors.get("func_code") or str(error)}


def with_text(fields: Mapping[str, Any], code: str) -> dict[str, Any]:
    """Return a body with inline code. Empty code is left out, so the operation stores default code, or refuses."""
    file = b64encode(code.encode("utf-8", "replace")).decode()
    return {**fields, "code_type": "inline", "func_code": {"file": file} if code else {}}


async def with_package(fields: Mapping[str, Any], pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a body with a zip package, as the package arrives."""
    head = msgspec.json.encode({**fields, "code_type": "zip"})
    yield head[:-1] + b',"func_code":{"file":"'
    rest = b""
    async for piece in pieces:
        rest += piece
        whole = len(rest) // 3 * 3
        if whole:
            yield b64encode(rest[:whole])
            rest = rest[whole:]
    yield b64encode(rest) + b'"}}'
