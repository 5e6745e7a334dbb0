"""Data directories written by earlier engines, and the program that writes one: ``python -m tests.acceptance.upgrade``.

``archives/`` has an archive for each: the data directory of an engine that was killed, and ``manifest.json`` with its
contents as its API showed them. ``test_upgrade.py`` starts the present engine on each of them.
"""

#: Settings of all engines on these directories: free ports, and short waits.
SETTINGS = {
    "FUNCTIOND_RETRY__JITTER": "0",
    "FUNCTIOND_RETRY__LONGEST": "3600",
    "FUNCTIOND_PLUGINS__APIG__PORT": "0",
    "FUNCTIOND_PLUGINS__APIG__DEDICATED__PORT": "0",
    "FUNCTIOND_PLUGINS__APIG__URL": "http://api.test",
    "FUNCTIOND_PLUGINS__APIG__DEDICATED__URL": "http://dedicated.test",
    "FUNCTIOND_PLUGINS__LTS__BATCH_WAIT": "0.05",
}
