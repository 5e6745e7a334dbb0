"""Quotas of projects, functions and versions: numbers of what clients may create."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Most = Annotated[int, Meta(ge=0)]


class Quotas(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the section ``limits``. Lower ones concern new entries only."""

    functions: Most = 10_000  #: of a project
    versions: Most = 1_000  #: published ones of a function
    aliases: Most = 1_000  #: of a function
    triggers: Most = 1_000  #: of a version or alias
    reserved_instances: Most = 10_000  #: of a project, also of schedules
    test_events: Most = 200  #: of a function
    dependencies: Most = 10_000  #: versions of all dependencies of a project
    function_dependencies: Most = 100  #: dependencies of a function
    variables: Most = 200  #: environment variables of a function, and as many encrypted ones
    variables_size: Most = 32_768  #: characters of their names and values
    topics: Most = 100_000  #: of a project, in SMN
    log_groups: Most = 1_000  #: of a project, in LTS
    log_streams: Most = 1_000  #: of a log group
