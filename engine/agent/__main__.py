"""Entry point of an agent, ``python -m engine.agent``, with the socket to its supervisor as standard input."""

import os
import socket

from engine.agent.link import LARGEST, decode_configuration
from engine.agent.main import run

if __name__ == "__main__":
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    run(decode_configuration(link.recv(LARGEST)), link)
