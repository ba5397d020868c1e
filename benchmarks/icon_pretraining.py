"""Prepare the drawings that the base model is pre-trained on: icons of the pre-training families
and five styles of emoji, all with their transparency.

    python benchmarks/icon_pretraining.py LIST CACHE EMOJI_PACKAGES OUT

Needs ``resvg-py==0.5.0`` beside numpy and Pillow. LIST is the JSON list of groups (one drawing of a
family under one name, with its variants) of `icon_pretraining_list.py`, CACHE the folder that
`icon_index.py` kept, EMOJI_PACKAGES that of the npm tarballs that `benchmarks/emoji_set.py` pins.
OUT gets what the source `drawings` reads: ``drawings.json``, ``coverage.npy`` and ``colours.npy``.
Their list, a line for each drawing, goes into ``icon_pretraining.txt.xz`` beside this script.

Two thirds of the icons have a name that no other designer uses, and there are few emoji. So an
epoch has emoji, and icons whose name several designers use, more often (`TIMES`).
"""

from __future__ import annotations

import argparse
import functools
import json
import lzma
from collections import defaultdict
from pathlib import Path
from typing import Any

import emoji_set
import icon_set
import numpy as np

from radapter.data import emoji

SIZE = 64
EMOJI_STYLES = [
    "twemoji",
    "fluent-emoji",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
    "noto-v1",
]
ONE_COLOUR = ["fluent-emoji-high-contrast"]
KINDS = {"line": "line icon", "solid": "solid icon", "two-tone": "two-tone icon",
         "pixel": "pixel icon", "colour": "colour icon"}  # fmt: skip
TIMES = {1: 1, 2: 2, 3: 4}
"""How often an epoch has an icon, by how many designers use its name (3: or more)"""
TIMES_EMOJI = 12


class Pictures:
    """The arrays as they grow."""

    def __init__(self) -> None:
        self.coverages: list[np.ndarray] = []
        self.colours: list[np.ndarray] = []

    def add(self, coverage: np.ndarray, colours: np.ndarray | None) -> tuple[int, int]:
        self.coverages.append(coverage)
        if colours is None:
            return len(self.coverages) - 1, -1
        self.colours.append(colours)
        return len(self.coverages) - 1, len(self.colours) - 1


@functools.cache
def drawn(path: Path) -> tuple[dict[str, int], np.ndarray, dict[int, int], np.ndarray]:
    """A set: numbers by name, coverages, places among the colours by number, colours."""
    with np.load(path) as found:
        names = {str(name): i for i, name in enumerate(found["names"])}
        places = {int(i): place for place, i in enumerate(found["coloured"])}
        return names, found["alpha"], places, found["rgb"]


def of_icons(groups: list[dict[str, Any]], cache: Path, pictures: Pictures) -> list[dict[str, Any]]:
    """Entries of the groups."""
    designers: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        designers[group["name"]].add(group["family"])
    entries = []
    for number, group in enumerate(groups):
        added = []
        for icon in group["icons"]:
            set_name, _, name = icon.partition(":")
            names, alpha, places, rgb = drawn(cache / f"{set_name}.npz")
            i = names[name]
            added.append(pictures.add(alpha[i], rgb[places[i]] if i in places else None))
        name, what = group["name"], KINDS.get(group["kind"], "icon")
        phrases = list(dict.fromkeys([f"{what} of {name}", f"{name} icon"]))
        entries.append(
            {
                "key": f"{number}/{group['icons'][0]}",
                "name": name,
                "family": group["family"],
                "kind": group["kind"],
                "keywords": group["keywords"],
                "phrases": phrases,
                "times": TIMES[min(max(TIMES), len(designers[name]))],
                "pictures": [picture for picture, _ in added],
                "colours": [colours for _, colours in added],
            }
        )
    return entries


def of_emoji(packages: Path, kept_out: set[str], pictures: Pictures) -> list[dict[str, Any]]:
    """Entries of the five styles, without the concepts that are kept out."""
    concepts, icons, chars = emoji_set.sources(packages)
    matched = emoji_set.match(concepts, icons, chars)
    entries = []
    for concept in emoji.concepts():
        if concept["hexcode"] in kept_out:
            continue
        subgroup = concept["subgroup"]
        phrases = [f"{subgroup}: {concept['name']}"]
        phrases += [f"{keyword}, {subgroup}" for keyword in concept["keywords"]]
        for style in EMOJI_STYLES:
            name = matched[style][concept["hexcode"]]
            picture = np.asarray(icon_set.draw(emoji_set.svg(icons[style], name)))
            colours = None if style in ONE_COLOUR else picture[..., :3]
            place, colour = pictures.add(picture[..., 3], colours)
            entries.append(
                {
                    "key": f"{style}/{concept['hexcode']}",
                    "name": concept["name"],
                    "family": style,
                    "kind": "emoji",
                    "keywords": concept["keywords"],
                    "phrases": phrases,
                    "times": TIMES_EMOJI,
                    "pictures": [place],
                    "colours": [colour],
                }
            )
    return entries


def listed_names(entries: list[dict[str, Any]]) -> bytes:
    """Family, kind, icon, name and keywords of each drawing, in order, a line each."""
    lines = []
    for entry in entries:
        key = entry["key"] if entry["kind"] == "emoji" else entry["key"].partition("/")[2]
        of = (entry["family"], entry["kind"], key, entry["name"], ", ".join(entry["keywords"]))
        lines.append("\t".join(of))
    text = "".join(f"{line}\n" for line in sorted(lines))
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("list", "cache", "packages", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    listed = json.loads(given.list.read_text(encoding="utf-8"))
    pictures = Pictures()
    kept_out = {emoji_set.bare(hexcode) for hexcode in listed["kept_out"]["emoji"]}
    kept_out = {c["hexcode"] for c in emoji.concepts() if emoji_set.bare(c["hexcode"]) in kept_out}
    entries = of_icons(listed["groups"], given.cache, pictures)
    entries += of_emoji(given.packages, kept_out, pictures)
    given.out.mkdir(parents=True, exist_ok=True)
    np.save(given.out / "coverage.npy", np.stack(pictures.coverages))
    np.save(given.out / "colours.npy", np.stack(pictures.colours))
    (given.out / "drawings.json").write_text(json.dumps(entries), encoding="utf-8")
    Path(__file__).with_suffix(".txt.xz").write_bytes(listed_names(entries))
    counts = f"{len(entries)} drawings, {len(pictures.coverages)} pictures"
    print(f"{counts}, {len(kept_out)} emoji left out")


if __name__ == "__main__":
    main()
