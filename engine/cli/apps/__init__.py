"""Deployment of the functions of an app, which a program declares with ``functiond.App``."""

from engine.cli.apps.deployment import deploy_app, show_app, store_app
from engine.cli.apps.description import describe, is_app

__all__ = ["deploy_app", "describe", "is_app", "show_app", "store_app"]
