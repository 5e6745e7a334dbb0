"""Packaging of a folder or file for the API.

``build`` makes the package of a function: it checks the code and installs dependencies for the interpreter that will
run it. ``pack`` packs a folder as it is.
"""

from engine.cli.packaging.building import Build, BuildOptions, build, pack
from engine.cli.packaging.defaults import default_handler, default_name

__all__ = ["Build", "BuildOptions", "build", "default_handler", "default_name", "pack"]
