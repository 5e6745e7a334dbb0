"""FunctionGraph as a destination: the outcome of one function is the event of another function on this engine."""

from __future__ import annotations

from engine import Plugin
from plugins.function.destination import FunctionDestination, FunctionParam

plugin = Plugin(kinds=("FunctionGraph",), param=FunctionParam, destination=FunctionDestination)
