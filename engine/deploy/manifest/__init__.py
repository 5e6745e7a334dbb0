"""Manifests: TOML files that declare the functions, triggers, topics and streams of a project."""
