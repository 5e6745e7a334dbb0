"""First program of an agent. The supervisor starts it by its path, with a socket as standard input.

Process 1 of a pid namespace must reap all processes whose parents have exited. There, the agent becomes a child of this
program, which does nothing else and needs a quarter of the agent's memory. Elsewhere this program becomes the agent.
"""

import os
import sys

if __name__ == "__main__":
    os.write(0, b"{}")  # the supervisor learns the id of this process
    if os.getpid() == 1 and (agent := os.fork()):
        os.close(0)
        while True:
            pid, status = os.wait()
            if pid == agent:
                os._exit(abs(os.waitstatus_to_exitcode(status)))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "engine.agent"])
