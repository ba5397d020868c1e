"""The file of a result. Whether it can be written is checked before the work; if writing fails
after it, the numbers are still returned."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radapter.errors import BrokenInput
from radapter.files import write_atomic
from radapter.names import slug


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
            f"The result cannot be written to {path.parent}: {error.strerror}. Free space "
            "there, or allow writing."
        ) from None


def read_result(path: Path) -> dict[str, Any]:
    """A result whose models say what they are, whatever version wrote it.

    Each of `models` has `kind`, which is zero-shot, tuned, engine, (of no run) model, or
    trivial: one that has learned nothing, and
    `alpha`, None where there is none. Earlier versions said it in labels: "alpha 0.50".

    Raises:
        OSError, ValueError: it is not there, or no JSON.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(result, dict):
        raise ValueError(f"{path} is not a result")
    for label, model in result.get("models", {}).items():
        if "kind" not in model:
            kind = "tuned" if label.startswith("alpha ") else "engine"
            model["kind"] = "zero-shot" if label == "zero-shot" else kind
            model["alpha"] = 0.0 if label == "zero-shot" else result.get("alpha")
    return result


def of_kind(result: Mapping[str, Any], kind: str) -> list[str]:
    """The labels of a result's models of a kind, in their order."""
    return [label for label, model in result["models"].items() if model["kind"] == kind]


def write_for_servers(
    path: Path, label: str, of: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Write what benchmarks' servers take, to servers/RESULT/MODEL/DATASET/FILE beside the result.

    Args:
        path: of the result.
        label: of the model in it.
        of: by data set the content of each file by its name.

    Returns:
        `for_servers`, the paths; nothing if there is nothing to write.
    """
    written = []
    for dataset, files in of.items():
        for name, content in files.items():
            place = path.parent / "servers" / path.stem / slug(label) / dataset / name
            write_atomic(place, json.dumps(content) + "\n")
            written.append(str(place))
    return {"for_servers": written} if written else {}


def write_result(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result with its `file`; where it could not be written, None, and `not_written` is why."""
    try:
        write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    except OSError as error:
        return result | {"file": None, "not_written": f"{path}: {error.strerror}"}
    return result | {"file": str(path)}
