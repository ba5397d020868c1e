"""Fetch the weights of an open_clip tag; without a network, say at once how to bring them."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from open_clip import list_models, pretrained
from open_clip.transform import PreprocessCfg

from radapter.errors import BrokenInput

ANSWERS_WITHIN = 3.0
"""Seconds for a server to answer at all; open_clip itself would wait for minutes."""


def fetch(name: str, architecture: str, known: Mapping[str, Any]) -> None:
    """Have the weights of a tag in open_clip's cache, from which it then loads them.

    Args:
        name: `NAME:TAG` as the user gave it.
        architecture: its NAME.
        known: what open_clip says of the tag: `hf_hub` or `url`.

    Raises:
        BrokenInput: they are not in the cache and cannot be fetched.
    """
    if known.get("hf_hub"):
        repository, files = _files(known["hf_hub"])
        cached = [huggingface_hub.try_to_load_from_cache(repository, file) for file in files]
        if any(isinstance(path, str) for path in cached):
            return
        what = f"{files[0]} (or {files[-1]}) of {repository} on huggingface.co"
        server = f"{constants.ENDPOINT}/{repository}"
    elif known.get("url"):
        what = server = str(known["url"])
        if (Path.home() / ".cache" / "clip" / os.path.basename(server)).is_file():
            return
    else:
        return
    try:
        if known.get("hf_hub") and constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        _check_answers(server)
        pretrained.download_pretrained(dict(known))
    except Exception as error:
        reason = " ".join(str(getattr(error, "reason", "") or error).split())[:200]
        raise BrokenInput(
            f"The weights of {name} are not on this machine and cannot be fetched ({reason}). "
            f"They are {what}: {_by_hand(architecture, known)}"
        ) from error


def _by_hand(architecture: str, known: Mapping[str, Any]) -> str:
    """What to type once the file is here. The activation and the preprocessing belong to the tag,
    and a bare file says nothing of either."""
    default = PreprocessCfg()
    own = (
        any(list(known.get(key) or value) != list(value) for key, value in (
            ("mean", default.mean), ("std", default.std)))
        or known.get("interpolation", default.interpolation) != default.interpolation
        or known.get("resize_mode", default.resize_mode) != default.resize_mode
    )  # fmt: skip
    if own:
        return (
            "as these weights have their own preprocessing, bring open_clip_model.safetensors and "
            "open_clip_config.json of that place into one folder and name the folder."
        )
    quick = f"{architecture}-quickgelu"
    if known.get("quick_gelu") and quick in list_models():
        architecture = quick
    return f"bring that file here and name it, as {architecture}:FILE."


def _files(hf_hub: str) -> tuple[str, list[str]]:
    """Repository and the files that open_clip tries in it, in its order."""
    repository, file = os.path.split(hf_hub)
    file = file or pretrained.HF_WEIGHTS_NAME
    return repository, [*pretrained._get_safe_alternatives(file), file]


def _check_answers(server: str) -> None:
    """Any answer will do, through whatever proxy the environment names."""
    try:
        request = urllib.request.Request(server, method="HEAD")
        urllib.request.urlopen(request, timeout=ANSWERS_WITHIN).close()
    except urllib.error.HTTPError:
        pass
