"""Files and folders written whole or not at all, hashes, and the metadata of safetensors files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from radapter.errors import BrokenInput

SCHEMA_VERSION = 1
"""Of the metadata that radapter writes into safetensors files; those of a higher one are refused"""


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write a file whole or not at all: temporary name, sync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name_file(error, temporary, path)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own at the end, or vanishes on an error.

    A folder that is at `path` already is moved aside first and removed after.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for item in (*temporary.rglob("*"), temporary):
            _sync(item)
        old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
        replaced = path.exists()
        if replaced:
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except BaseException:
            if replaced:
                os.rename(old, path)
            raise
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_file(error, temporary, path)
        raise
    _sync(path.parent)
    if replaced:
        shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder under a temporary name, so that a kill leaves no half of it under its own."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(OSError):
        os.rename(path, temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def _name_file(error: BaseException, temporary: Path, path: Path) -> None:
    """A full disk is reported without a file's name, other faults with that of a temporary file:
    name the user's file instead."""
    if isinstance(error, OSError):
        error.filename = str(error.filename or path).replace(str(temporary), str(path))


def clear_temporary(folder: Path, name: str = "*") -> None:
    """Undo what a killed process left half-done in `folder`, of what is called `name`.

    Call it with the folder locked.
    """
    for leftover in list(folder.rglob(f".{name}.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    for leftover in list(folder.rglob(f".{name}.old")):
        path = leftover.with_name(leftover.name[1:].rsplit(".", 2)[0])
        if path.exists():
            shutil.rmtree(leftover, ignore_errors=True)
        else:  # killed between the two renames of `new_folder`
            os.rename(leftover, path)


def _sync(path: Path) -> None:
    """Of a file its content, of a folder its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path | str) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a whole safetensors file, read without torch.

    Raises:
        BrokenInput: it is missing, truncated, a pickle, or anything else.
    """
    if not path.is_file():
        raise BrokenInput(f"Weights not found: {path}.")
    try:
        with safe_open(path, framework="np") as tensors:
            return tensors.metadata() or {}
    except (SafetensorError, OSError) as error:
        # A damaged safetensors file can start like a pickle: eight bytes of a length, then JSON.
        with open(path, "rb") as file:
            start = file.read(9)
        if (start[:2] == b"PK" or start[:1] == b"\x80") and start[8:] != b"{":
            raise BrokenInput(
                f"{path} is a pickle (or a torch.save archive), which can run code when loaded. "
                "Only safetensors are taken."
            ) from None
        raise BrokenInput(
            f"{path} is damaged or truncated: {error}. Copy or make it again."
        ) from None


def radapter_facts(path: Path) -> dict[str, Any]:
    """What radapter wrote into the metadata of its own safetensors file (`facts_metadata`).

    Raises:
        BrokenInput: as `safetensors_metadata`; or a newer radapter wrote it.
        ValueError: it is whole, and not one of radapter's.
    """
    facts = json.loads(safetensors_metadata(path).get("radapter", "null"))
    if not isinstance(facts, dict):
        raise ValueError(f"{path} has no facts of radapter's")
    refuse_newer(path, facts)
    return facts


def refuse_newer(path: Path, facts: Mapping[str, Any]) -> None:
    """BrokenInput if facts of a file are of a later schema version than this one."""
    version = facts.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BrokenInput(
            f"{path} has schema version {version}; this radapter reads up to {SCHEMA_VERSION}. "
            "Upgrade radapter."
        )


def facts_metadata(facts: dict[str, Any]) -> dict[str, str]:
    """`metadata` for `safetensors.torch.save`. One entry, as the order of several is not fixed in
    the file: the same facts give the same bytes."""
    return {"radapter": json.dumps(facts, sort_keys=True)}
