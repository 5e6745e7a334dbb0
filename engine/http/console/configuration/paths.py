"""Names and paths of the pages of a function's configuration, and of their actions, below the function's page."""

from __future__ import annotations

#: Pages, except those of triggers and asynchronous settings.
SETTINGS = (
    ("ConsoleBasics", "/configuration"),
    ("ConsoleEnvironment", "/configuration/environment"),
    ("ConsoleConcurrency", "/configuration/concurrency"),
    ("ConsoleVersions", "/configuration/versions"),
    ("ConsoleAlias", "/configuration/aliases/{alias}"),
    ("ConsoleTags", "/configuration/tags"),
    ("ConsoleReserved", "/configuration/reserved"),
    ("ConsoleReservation", "/configuration/reserved/{qualifier}"),
)
#: Pages for the role admin only, like the operations that they need.
CREATIONS = (
    ("ConsoleNewAlias", "/configuration/new-alias"),
    ("ConsoleNewReservation", "/configuration/new-reservation"),
)
#: Paths to which their forms are sent.
SAVES = (
    ("ConsoleSaveBasics", "/configuration"),
    ("ConsoleSaveEnvironment", "/configuration/environment"),
    ("ConsoleSaveConcurrency", "/configuration/concurrency"),
    ("ConsoleSaveControls", "/configuration/concurrency/controls"),
    ("ConsolePauseWithReason", "/configuration/concurrency/pause"),
    ("ConsoleEndPause", "/configuration/concurrency/resume"),
    ("ConsolePublishVersion", "/configuration/versions"),
    ("ConsoleDeleteVersion", "/configuration/versions/delete"),
    ("ConsoleCreateAlias", "/configuration/new-alias"),
    ("ConsoleSaveAlias", "/configuration/aliases/{alias}"),
    ("ConsoleDeleteAlias", "/configuration/aliases/{alias}/delete"),
    ("ConsoleSaveTags", "/configuration/tags"),
    ("ConsoleReserve", "/configuration/new-reservation"),
    ("ConsoleSaveReservation", "/configuration/reserved/{qualifier}"),
    ("ConsoleRemoveReservation", "/configuration/reserved/{qualifier}/remove"),
)
