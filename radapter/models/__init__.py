"""open_clip models: load by name or from a folder, encode, hash, save. Built in is
`pictogram-clip`."""

from radapter.models.ensemble import together
from radapter.models.loaded import (
    LoadedModel,
    canonical_preprocessing,
    image_size,
    save,
    weights_hash,
    with_head,
)
from radapter.models.loading import check_name, load, names
from radapter.models.text import encode_text, shorten, takes_short_texts

__all__ = [
    "LoadedModel",
    "canonical_preprocessing",
    "check_name",
    "encode_text",
    "image_size",
    "load",
    "names",
    "save",
    "shorten",
    "takes_short_texts",
    "together",
    "weights_hash",
    "with_head",
]
