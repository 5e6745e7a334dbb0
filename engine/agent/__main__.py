"""Entry point of an agent, ``python -m engine.agent``, which the supervisor starts with a socket as standard input.

Process 1 of a pid namespace must reap all processes whose parents have exited. If this is process 1, it does nothing
else, and the agent is a child.
"""

import os
import socket

from engine.agent.link import LARGEST, Report, decode_configuration, encode


def main() -> None:
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    link.send(encode(Report()))
    if os.getpid() == 1 and (agent := os.fork()):
        link.close()
        while True:
            pid, status = os.wait()
            if pid == agent:
                os._exit(abs(os.waitstatus_to_exitcode(status)))
    configuration = decode_configuration(link.recv(LARGEST))
    from engine.agent.main import run  # not in process 1, which needs nothing of it

    run(configuration, link)


if __name__ == "__main__":
    main()
