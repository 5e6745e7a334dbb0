"""Names and paths of the pages of a function's configuration, and of their actions, below the function's page."""

from __future__ import annotations

#: Pages, except those of triggers and asynchronous settings.
SETTINGS = (
    ("ConsoleBasics", "/configuration"),
    ("ConsoleEnvironment", "/configuration/environment"),
    ("ConsoleConcurrency", "/configuration/concurrency"),
)
#: Paths to which their forms are sent.
SAVES = (
    ("ConsoleSaveBasics", "/configuration"),
    ("ConsoleSaveEnvironment", "/configuration/environment"),
    ("ConsoleSaveConcurrency", "/configuration/concurrency"),
    ("ConsoleSaveControls", "/configuration/concurrency/controls"),
    ("ConsolePauseWithReason", "/configuration/concurrency/pause"),
    ("ConsoleEndPause", "/configuration/concurrency/resume"),
)
