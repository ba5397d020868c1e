"""The file of a result: whether it can be written is known before the work, and numbers are not
lost where it cannot be written after it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from radapter.errors import BrokenInput
from radapter.files import write_atomic


def check_writable(path: Path) -> None:
    """Try the folder of a file that is to be written.

    Raises:
        BrokenInput: nothing can be written there.
    """
    try:
        with tempfile.TemporaryFile(dir=next(p for p in path.absolute().parents if p.exists())):
            pass
    except OSError as error:
        raise BrokenInput(
            f"The result cannot be written to {path.parent}: {error.strerror}. Make room there, or "
            "allow it."
        ) from None


def write_result(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result with its `file`; where it could not be written, None, and `not_written` is why."""
    try:
        write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    except OSError as error:
        return result | {"file": None, "not_written": f"{path}: {error.strerror}"}
    return result | {"file": str(path)}
