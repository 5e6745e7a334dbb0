"""Text from elsewhere, made fit to be kept."""

from __future__ import annotations

MASK = "******"  #: stands for a secret


def storable(text: str, limit: int = 4096) -> str:
    """UTF-8 can hold it: lone surrogates (in undecodable file names, say) become escapes; and it is not too long."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
