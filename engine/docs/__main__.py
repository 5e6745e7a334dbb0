"""Entry point of ``python -m engine.docs``."""

from __future__ import annotations

import sys

from engine.docs.generate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
