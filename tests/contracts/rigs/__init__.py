"""The outsides of sources, one module for each kind: how to make an event there, and how to break it.

A new source adds a module with a class ``Rig`` (derived from ``base.Rig``) to this folder; the contract suite
``test_triggers`` finds it.
"""
