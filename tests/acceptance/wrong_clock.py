"""Engine whose clock is wrong: ``python wrong_clock.py FILE serve …``. The file has the seconds that it is ahead.

The file is read each time, so that a test can set the clock while the engine runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])  # instead of the folder of this file


def main() -> None:
    real, ahead = time.time, Path(sys.argv.pop(1))
    time.time = lambda: real() + float(ahead.read_text())

    from engine.cli import main as run  # imported late, so that no module keeps the real function
    from engine.model.clock import Clock

    Clock.__init__.__defaults__ = (1.0,)  # notice steps after a second, not after 30
    run()


if __name__ == "__main__":
    main()
