"""Parameters that clients have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

from functiond.configuration import configuration
from functiond.operations import Operations

C = TypeVar("C")


class Configured(Generic[C]):
    """Client of one engine for one project, on connections of the type C.

    Parameters that are None come from the environment: ``FUNCTIOND_URL``, ``FUNCTIOND_TOKEN``, and so on. Give a
    ``token``, or an access key, which signs requests; a ``token`` beside a key is the security token of a temporary
    key. ``ca_file`` is a PEM file with the certificates to trust. Broken connections and refusals with 429 and 503 are
    tried again ``retries`` times, for ``timeout`` seconds at most. Raises BadConfiguration.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        project: str | None = None,
        ca_file: str | None = None,
        retries: int = 5,
        timeout: float = 60.0,
    ) -> None:
        self.configuration = configuration(
            url=url,
            token=token,
            access_key=access_key,
            secret_key=secret_key,
            project=project,
            ca_file=ca_file,
            retries=retries,
            timeout=timeout,
        )
        self._operations = Operations(self.configuration)
        self._transport = self._connect()

    def _connect(self) -> C:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.configuration.url!r}, project={self.configuration.project!r})"
