"""Launcher of instances as processes of this machine."""
