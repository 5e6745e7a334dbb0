"""Agent of a node: a machine that runs instances for an engine elsewhere.

    functiond agent ── Supervisor ──▶ process 1 of a pid namespace ──▶ Agent ──▶ LocalLauncher ──▶ instances
                           ▲ session, deadline                           ╚═══ connection ═══ engine

The agent starts instances with the launcher that the engine uses on its own machine, and passes their frames on as they
are. The supervisor ends everything when the engine has been silent for the time of the lease, and starts a new agent.
"""
