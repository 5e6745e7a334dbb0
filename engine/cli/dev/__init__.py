"""``functiond dev``: deploys a folder again whenever it changes, follows its log, and sends it events by keys."""
