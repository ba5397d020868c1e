"""Names of files are bytes, and need not be UTF-8: what is not, Python keeps as lone surrogates.

Hashes are of the bytes, JSON has the surrogates as escapes, and on a terminal the bytes come out as
they are.
"""

from __future__ import annotations

import io
import re
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


def slug(name: str) -> str:
    """The name with `-` for all that is not safe in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def print_any(stream: TextIO) -> None:
    """Let a stream print names that are not UTF-8, which would raise an error otherwise."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="surrogateescape")
