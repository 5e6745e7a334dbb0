"""Code that ``functiond dev`` deploys: a folder, a file, or an app."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from functiond.describe import Description

from engine.cli.deploy import Configuration, Installation, configured, show_app
from engine.cli.output import Output
from engine.cli.target import Target
from engine.deploy.apps import describe, plan_app, store_app
from engine.deploy.functions import Asynchronous, deploy_function
from engine.deploy.manifest.project import Project
from engine.deploy.packaging.files import select
from engine.errors import UsageError

_APP_FILES = (".functiondignore", ".gitignore", "requirements.txt", "pyproject.toml")


class Options(NamedTuple):
    configuration: Configuration
    installation: Installation
    asynchronous: Asynchronous


class DeployableFunction:
    """Folder or file of one function."""

    def __init__(self, path: Path, name: str, options: Options) -> None:
        self._path, self._name, self._options = path, name, options
        self.is_tree = path.is_dir()  #: folders in ``watched`` count, too
        #: folder whose changes may change the code
        self.watched = path if self.is_tree else path.absolute().parent

    def read(self) -> None:
        """Find the files of the package, all of which the path names."""

    def state(self) -> object:
        """Return a value that differs if any file of the package has changed."""
        return _state([self._path])

    def deploy(self, target: Target) -> list[str]:
        """Deploy the code as it is now. Return the names of its functions. Raises FunctiondError."""
        configuration, installation, asynchronous = self._options
        config, options = configuration.fields(), installation.options()
        stored = deploy_function(target.client(), self._path, self._name, config, options, asynchronous)
        Output().print(stored.summary(self._name))
        return [self._name]


class DeployableApp:
    """App, such as ``tasks:app``. Until it has been imported, the current folder stands for its code.

    Its attributes and methods are those of ``DeployableFunction``.
    """

    is_tree = True

    def __init__(self, text: str, name: str | None, options: Options) -> None:
        self._text, self._name, self._options = text, name, options
        self._app: Description | None = None

    @property
    def watched(self) -> Path:
        return Path(self._app.root) if self._app else Path.cwd()

    def read(self) -> None:
        """Import the app. Raises FunctiondError if that fails."""
        configuration, _, asynchronous = self._options
        self._app = configured(describe(self._text), self._name, configuration, asynchronous)

    def state(self) -> object:
        names = [*self._app.parts, *_APP_FILES] if self._app else ["."]
        return _state([self.watched / name for name in names])

    def deploy(self, target: Target) -> list[str]:
        assert self._app is not None, "read is called before"
        config = self._options.configuration.fields()
        project, options = Project(target.client()), self._options.installation.options()
        plan = plan_app(project, self._app, config, options, prune=False, take_over=False)
        done = store_app(project, self._app, plan, pruned=False)
        show_app(done)
        return [function.func_name for function in done.functions]


Deployable = DeployableFunction | DeployableApp


def _state(paths: list[Path]) -> Mapping[str, object]:
    """Return times and sizes of the files that packages of the paths contain, or the reason why there is none."""
    state: dict[str, object] = {}
    for path in paths:
        try:
            for name, file in (select(path).found if path.is_dir() else {"": path}).items():
                status = file.stat()
                state[f"{path}/{name}"] = status.st_mtime_ns, status.st_size, status.st_ino
        except (UsageError, OSError) as error:
            state[str(path)] = str(error)
    return state
