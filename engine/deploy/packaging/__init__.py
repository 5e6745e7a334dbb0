"""Packaging of a folder or file for the API.

``build`` makes the package of a function: it checks the code and installs dependencies for the interpreter that will
run it.
"""

from engine.deploy.packaging.building import Build, BuildOptions, build, default_name, left_out

__all__ = ["Build", "BuildOptions", "build", "default_name", "left_out"]
