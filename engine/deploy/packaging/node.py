"""JavaScript code of a package: checks before it is sent, and its dependencies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.deploy.packaging.tools import interpreter_text, local_builder, local_interpreter, run_tool
from engine.errors import UsageError
from engine.runtimes.interpreters import InterpreterInfo

NODE = (".js", ".mjs", ".cjs")
_AT_MOST = 100  #: files; each takes a process
_TOGETHER = 4  #: processes
_LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}  #: npm's names
_NOT_NEEDED = ("node_modules/.bin/", "node_modules/.cache/", "node_modules/.package-lock.json")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  #: of GitHub, such as owner/name
_GROUPS = ("dependencies", "optionalDependencies", "peerDependencies")


def check_syntax(files: Mapping[str, Path], wanted: InterpreterInfo) -> None:
    """Check the syntax of a package's JavaScript files if this machine has Node.js of the wanted version.

    Raises UsageError with what Node.js says about the first file that it does not accept.
    """
    local = local_interpreter(wanted)
    own = [file for name, file in files.items() if name.endswith(NODE) and "node_modules/" not in name]
    if local is None:
        return
    node = local.path

    def problem(file: Path) -> str:
        run = subprocess.run([node, "--check", file], stderr=subprocess.PIPE, text=True, check=False)
        return "" if run.returncode == 0 else run.stderr

    with ThreadPoolExecutor(_TOGETHER) as threads:
        for said in threads.map(problem, own[:_AT_MOST]):
            if said:
                report = said.partition("\n    at ")[0].strip().replace("\n", "\n  ")
                raise UsageError(f"the code has a syntax error, says {interpreter_text(wanted)}:\n  {report}")


def check_handler(files: Mapping[str, Path], handler: str) -> str:
    """Check that the package has the file that the handler names. Return a line if it seems to export no such function.

    Raises UsageError if the handler is malformed, or its file does not exist.
    """
    path, _, name = handler.rpartition(".")
    path = path.lstrip("/")
    if not path or not name:
        raise UsageError(f"the handler is {handler}: it must look like file.function, such as index.handler")
    file = next((path + suffix for suffix in NODE if path + suffix in files), "")
    if not file:
        raise UsageError(f"the package has no {path}.js for the handler {handler}: set another --handler")
    text = files[file].read_text(errors="replace")
    exports = re.search(r"\bexports?\b", text) is not None and re.search(rf"\b{re.escape(name)}\b", text) is not None
    return "" if exports else f"{file} seems to export no function {name} for the handler {handler}"


class NodeDependencies(Struct, frozen=True, kw_only=True):
    file: Path
    description: dict[str, Any]  #: ``package.json``
    lock: Path | None  #: versions that npm installs exactly
    content: str  #: of all files that say what is installed; empty: they name what may change, such as folders

    def tool(self, wanted: InterpreterInfo) -> str:
        return "npm"

    def install(self, tool: str, own: Mapping[str, Path], wanted: InterpreterInfo, folder: Path) -> None:
        """Install them into ``node_modules`` of ``folder``, beside the files that npm needs for that.

        Raises UsageError if npm fails, or if a package must be built for Node.js that this machine does not have.
        """
        npm = shutil.which(tool)
        if npm is None:
            raise UsageError(
                f"{self.file} has dependencies, and this machine has no npm to install them: install npm; "
                "--no-install sends the folder as it is"
            )
        builds = local_builder(wanted) is not None
        _copy(self, own, folder)
        action = "ci" if self.lock else "install"
        command = [npm, action, "--omit=dev", "--no-audit", "--no-fund", "--install-links"]
        if not builds:
            machine, libc = _MACHINES.get(wanted.machine, wanted.machine), wanted.libc or "glibc"
            command += ["--ignore-scripts", "--os=linux", f"--cpu={machine}", f"--libc={libc}"]
        run_tool(command, folder, f"installing package.json with npm for {interpreter_text(wanted)}")
        (folder / ".npmrc").unlink(missing_ok=True)  # the cache keeps no tokens
        if not builds:
            _check_scripts(folder, wanted)

    def needs(self, name: str) -> bool:
        """Return whether the code needs an installed file when it runs."""
        return name.startswith("node_modules/") and not name.startswith(_NOT_NEEDED)


def find_dependencies(root: Path) -> NodeDependencies | None:
    """Return the dependencies of a folder; None if it has none. Raises UsageError if their file is malformed."""
    file = root / "package.json"
    if not file.is_file():
        return None
    try:
        description = json.loads(file.read_bytes())
        named = {name: str(spec) for group in _GROUPS for name, spec in description.get(group, {}).items()}
    except ValueError as error:
        raise UsageError(f"{file} cannot be used: {error}") from None
    except AttributeError:
        groups = ", ".join(_GROUPS)
        raise UsageError(f"{file} cannot be used: it and its {groups} must be objects") from None
    if not named:
        return None
    lock = next((root / name for name in _LOCKS if (root / name).is_file()), None)
    local = [spec for spec in named.values() if spec.startswith(("file:", "link:", ".", "/", "workspace:"))]
    for spec in local:
        _check_inside(root, spec)
    parts = [json.dumps([description.get(key) for key in (*_GROUPS, "overrides", "engines")])]
    parts += [path.read_text() for path in (lock, root / ".npmrc") if path is not None and path.is_file()]
    branches = lock is None and any(spec.startswith("git") or _REPOSITORY.match(spec) for spec in named.values())
    changing = bool(local) or branches or "workspaces" in description
    return NodeDependencies(file=file, description=description, lock=lock, content="" if changing else "\n".join(parts))


def _check_inside(root: Path, spec: str) -> None:
    target = (root / spec.rpartition(":")[2].removeprefix("//")).resolve()
    if not target.is_relative_to(root.resolve()):
        raise UsageError(f"{root / 'package.json'} names {spec}, outside the folder: put a copy into the folder")


def _copy(dependencies: NodeDependencies, own: Mapping[str, Path], folder: Path) -> None:
    """Copy what npm reads. Scripts of the function itself are for its development, and do not run."""
    root = dependencies.file.parent
    if not dependencies.content:
        for name, file in own.items():
            if not name.startswith("node_modules/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / name)
    for name in (*_LOCKS, ".npmrc"):
        if (root / name).is_file():
            shutil.copy(root / name, folder / name)
    description = {field: value for field, value in dependencies.description.items() if field != "scripts"}
    (folder / "package.json").write_text(json.dumps(description))


def _check_scripts(folder: Path, wanted: InterpreterInfo) -> None:
    """Raise UsageError if an installed package has a script that should have built it."""
    installed = folder / "node_modules" / ".package-lock.json"
    packages = json.loads(installed.read_bytes())["packages"] if installed.is_file() else {}
    building = [
        path.rpartition("node_modules/")[2] for path, package in packages.items() if package.get("hasInstallScript")
    ]
    if building:
        raise UsageError(
            f"{', '.join(building)} must be built for {interpreter_text(wanted)}, which this machine does not have: "
            "deploy from a machine like the engine's, or use packages without install scripts"
        )
