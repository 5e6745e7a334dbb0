"""Instances on other machines, the nodes. An agent on each starts them, and carries their frames to the engine.

    Pool ──▶ Allocator ──▶ NodeLauncher ──▶ Placement ──▶ Node ──▶ Connection ═══ agent

A node that has not heard from the engine for the time of its lease kills everything that it runs. The engine runs the
work of a lost node again only after that.
"""
