"""Engine whose clock is behind: ``python earlier_clock.py SECONDS serve …``.

On an old data directory, an engine with the right clock would delete all that is past its retention.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[3])  # instead of the folder of this file


def main() -> None:
    real, behind = time.time, float(sys.argv.pop(1))
    time.time = lambda: real() - behind

    from engine.cli import main as run  # imported late, so that no module keeps the real function

    run()


if __name__ == "__main__":
    main()
