"""Entry point of ``python -m engine``."""

from engine.cli import main
from engine.config.search_path import drop_current_folder

drop_current_folder()
main()
