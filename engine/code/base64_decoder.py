"""Decoding of base64 text piece by piece, so that no step holds the interpreter for long."""

from __future__ import annotations

import base64
import binascii

_SPACE = bytes(range(9, 14)) + b" "


class Base64Decoder:
    """Decoder of one base64 text, with or without line breaks."""

    def __init__(self) -> None:
        self.size = 0  #: bytes decoded so far
        self._rest = b""

    def decode(self, text: bytes) -> bytes:
        """Return the bytes that the next piece of the text completes. Raises ValueError if it is not base64."""
        packed = self._rest + text.translate(None, _SPACE)
        whole = len(packed) - len(packed) % 4
        self._rest = packed[whole:]
        return self._decoded(packed[:whole])

    def end(self) -> bytes:
        """Return the bytes after the last complete group of four. Raises ValueError if the text is incomplete."""
        return self._decoded(self._rest)

    def _decoded(self, packed: bytes) -> bytes:
        if packed and self.size % 3:
            raise binascii.Error("data after the padding")
        content = base64.b64decode(packed, validate=True)
        self.size += len(content)
        return content
