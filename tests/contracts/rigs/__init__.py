"""Rigs of trigger sources, one module per kind. A rig sends events from outside the engine and interrupts its server.

A new source adds a module with a class ``Rig`` (derived from ``base.Rig``) to this folder; the contract suite
``test_triggers`` finds it.
"""
