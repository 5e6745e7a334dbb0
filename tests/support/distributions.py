"""Distributions for tests: wheels and source packages of Python, and packages of npm, made without a network."""

from __future__ import annotations

import json
import tarfile
import zipfile
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Build backend that needs no other package.
_BACKEND = """
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for file, text in {files!r}.items():
            wheel.writestr(file, text)
    return name
"""
_PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1.0"
"""


def add_wheel(
    folder: Path, name: str, tag: str = "py3-none-any", text: str = "VALUE = 1\n", version: str = "1.0"
) -> None:
    """Write a wheel with one module."""
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for file, content in _wheel_files(name, version, tag, text).items():
            wheel.writestr(file, content)


def add_installed(folder: Path, *names: str) -> None:
    """Pack installed distributions, and those that they require, as wheels."""
    for name in names:
        package = distribution(name)
        file = folder / f"{canonicalize_name(name).replace('-', '_')}-{package.version}-py3-none-any.whl"
        if file.exists():
            continue
        with zipfile.ZipFile(file, "w") as wheel:
            for part in package.files or ():
                if ".." not in part.parts and part.suffix != ".pyc":
                    wheel.write(str(part.locate()), str(part))
        required = map(Requirement, package.requires or ())
        add_installed(folder, *(r.name for r in required if not r.marker or r.marker.evaluate({"extra": ""})))


def add_source_package(folder: Path, name: str) -> None:
    """Write a source package, whose wheel has one module."""
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    built = _wheel_files(name, "1.0", "py3-none-any", "VALUE = 'built'\n")
    files = {
        "pyproject.toml": _PROJECT.format(name=name),
        "backend.py": _BACKEND.format(name=name, files=built),
        "PKG-INFO": info,
    }
    _write_archive(folder / f"{name}-1.0.tar.gz", f"{name}-1.0", files)


def add_npm_package(folder: Path, name: str, **description: object) -> Path:
    """Write an npm package with one module."""
    file = folder / f"{name}-1.0.0.tgz"
    described = json.dumps({"name": name, "version": "1.0.0", **description})
    _write_archive(file, "package", {"package.json": described, "index.js": f"exports.value = '{name}';\n"})
    return file


def _wheel_files(name: str, version: str, tag: str, text: str) -> dict[str, str]:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    return {**files, f"{info}/RECORD": "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])}


def _write_archive(file: Path, folder: str, files: dict[str, str]) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, BytesIO(text.encode()))
