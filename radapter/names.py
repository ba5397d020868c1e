"""Names of files are bytes, and need not be UTF-8: what is not, Python keeps as lone surrogates.

Hashes are of the bytes, JSON has the surrogates as escapes, and on a terminal the bytes come out as
they are.
"""

from __future__ import annotations

import io
from typing import TextIO


def to_bytes(name: str) -> bytes:
    """The name as the file system has it."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as broken JSON has it
        return name.encode("utf-8", "surrogatepass")


def from_bytes(name: bytes) -> str:
    """The name as Python has it, from the bytes of the file system."""
    return name.decode("utf-8", "surrogateescape")


def print_any(stream: TextIO) -> None:
    """Let a stream print every name, where it would stop the program at one that is not UTF-8."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="surrogateescape")
