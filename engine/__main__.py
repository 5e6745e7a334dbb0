from engine.cli import main
from engine.search_path import drop_current_folder

drop_current_folder()
main()
