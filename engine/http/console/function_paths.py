"""URL paths of the pages that create, test and delete functions and show their code, below that of a function."""

from __future__ import annotations

#: Pages for any role that may read.
READ = (("ConsoleTest", "/test"),)
#: Pages for the role admin only, like the operations that they need.
ADMIN = (("ConsoleFunctionPackage", "/package"), ("ConsoleFunctionRemoval", "/delete"))
#: Paths to which forms are sent.
ACTIONS = (
    ("ConsoleDeleteFunction", "/delete"),
    ("ConsoleSaveCode", "/code"),
    ("ConsoleSaveFile", "/code/file"),
    ("ConsoleUploadPackage", "/package"),
    ("ConsoleChooseDependencies", "/dependencies"),
    ("ConsoleTestFunction", "/test"),
    ("ConsoleSaveEvent", "/test/save"),
    ("ConsoleDeleteEvent", "/test/delete"),
)
