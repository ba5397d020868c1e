"""The built-in animated emoji: real animation, eight frames of 64 x 64 a clip, named as emoji are.

The names say what is seen, and the first frame shows it: nothing here tells whether a model uses
time. For that there is `moving-emoji`. See NOTICE.md for licences.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from PIL import Image

from radapter.data.tar_index import Member, index_shard

HERE = Path(__file__).parent
FRAMES = 8
"""Of every clip, at equal distances"""


@functools.cache
def clips() -> list[dict[str, Any]]:
    """Every clip: hexcode, name, keywords, group, subgroup, fold; sorted by hexcode."""
    return json.loads((HERE / "clips.json").read_text(encoding="utf-8"))


def member(hexcode: str) -> Member:
    """Where a clip lies."""
    return _index()[hexcode]


@functools.cache
def _index() -> dict[str, Member]:
    return {s.key: s.members[".webp"] for s in index_shard(HERE / "clips.tar").samples}


def frames(hexcode: str) -> list[Image.Image]:
    """The frames of a clip in their order."""
    strip = member(hexcode).picture()
    side = strip.height
    return [strip.crop((k * side, 0, (k + 1) * side, side)) for k in range(strip.width // side)]
