"""``functiond export``: the manifest of a project, with its code if a folder for it is named."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

from engine.cli.options import Flag
from engine.cli.output import Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.manifest.describing import described, manifest_text, revealed, variables_in
from engine.deploy.manifest.functions import files_of, mode_of, stored_code
from engine.deploy.manifest.project import Data, Project
from engine.deploy.packaging import BuildOptions, build
from engine.errors import UsageError
from engine.model.urn import NAME

#: Files that name dependencies, which ``apply`` installs.
DEPENDENCIES = ("requirements.txt", "pyproject.toml", "package.json")


def export(
    file: Path | None = None,
    /,
    *,
    code: Path | None = None,
    force: Flag = False,
    with_secrets: Flag = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Write a manifest of the project. Apply it here, and nothing changes.

    Secrets are left out: the manifest refers to environment variables in their place, and the command lists them. The
    engine shows the environment of functions to the role admin only.

    Parameters
    ----------
    file
        File to write. [default: standard output]
    code
        New folder for the code of the functions. Without it, the manifest names no code.
    force
        Replace an existing file.
    with_secrets
        Write secrets into the file, which only you can read then. The engine does not show those of triggers.
    """
    if with_secrets and file is None:
        raise UsageError("--with-secrets needs a file, which only you can read then: name one")
    if file is not None and file.exists() and not force:
        raise UsageError(f"{file} exists: name another file, or add --force")
    if code is not None and code.is_dir() and any(code.iterdir()):
        raise UsageError(f"--code is {code}: the folder is not empty: name a new one")
    project = Project(target.client())
    project.check_role()
    data = revealed(described(project)) if with_secrets else described(project)
    variables = sorted({variable.name for variable in variables_in(data)})
    notes = [f"Project {target.project} of {target.url}."]
    if code is None:
        notes.append("Code is not included: see --code.")
    else:
        _write_code(data, project, code, file.parent if file else Path())
    if variables:
        advice = f"set {', '.join(variables)} in the environment before apply"
        notes.append(f"Secrets: {advice}.")
        write(f"functiond: secrets are left out: {advice}", errors=True)
    text, count = manifest_text(data, notes), len(data["functions"])
    if file is None and target.json:
        print_json({"manifest": text, "functions": count, "variables": variables})
        return
    if file is None:
        write(text.rstrip("\n"), keep="\n\t")
        return
    _write(file, text, private=with_secrets)
    if target.json:
        print_json({"file": str(file), "functions": count, "variables": variables})
    else:
        Output().print(f"[bold green]written[/] {count} function{'' if count == 1 else 's'} to")
        Output().paste(str(file))


def _write(file: Path, text: str, *, private: bool) -> None:
    try:
        with open(file, "w", opener=partial(os.open, mode=0o600 if private else 0o666)) as written:
            if private:
                file.chmod(0o600)  # an existing file
            written.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


def _write_code(data: Data, project: Project, folder: Path, start: Path) -> None:
    """Write the code of each function, and name it in the function's table."""
    for name, table in data["functions"].items():
        if "code_url" in table:
            continue
        if not all(NAME.fullmatch(part) for part in name.split(":")):
            raise UsageError(
                f"the engine has a function {name!r}, which is no valid name: see that --url is an engine's"
            )
        function = project.functions[name]
        package = stored_code(project.client, function)
        if package is None:
            write(f"functiond: the code of {name} is too large for a reply and is left out", errors=True)
            continue
        try:
            # a folder "package/name" could lie in that of a function named "package"
            written = _written(package, folder / name.replace(":", "@"), project, function)
        except OSError as error:
            raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
        table["code"] = os.path.relpath(written, start)
        if any((written / dependency).exists() for dependency in DEPENDENCIES):
            table["install"] = False  # the package has them


def _written(package: bytes, folder: Path, project: Project, function: Data) -> Path:
    """Write a package as a folder; as a zip file if a folder would not give the same files, or would be refused."""
    files = files_of(package)
    if files and all(_is_inside(name, folder) and mode & 0o777 == mode for name, (_, mode) in files.items()):
        _extract(package, folder)
        options = BuildOptions(runtime=function["runtime"], handler=function["handler"], install=False)
        try:
            if files_of(build(project.client, folder, options).package) == files:
                return folder
        except UsageError:
            pass  # such as syntax errors: packages are not checked
        shutil.rmtree(folder)
    file = folder.with_name(f"{folder.name}.zip")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(package)
    return file


def _extract(package: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                path = folder / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, path.open("wb") as written:
                    shutil.copyfileobj(source, written)
                path.chmod(mode_of(entry))


def _is_inside(name: str, folder: Path) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())
