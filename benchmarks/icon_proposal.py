"""Propose which icons make up the classes of a list, and draw them on contact sheets.

Usage: ``python benchmarks/icon_proposal.py --cache DIR --out DIR [--classes FILE]``

Needs what `icon_index.py` needs. Takes icons of laboratory families that have a name of a class,
without those of `icon_drops.json` and faint ones. In a class: no near copies, at most three of a
designer and kind, at most `MOST` of a kind and split. A class needs `LEAST`. Writes
``proposal.json``, in the form of `icon_selection.json`, and contact sheets ``sheet_00.png`` and so
on: a row a class, its pictures numbered, those first that are least like other designers' pictures
of the class, as wrong ones mostly are.

What was chosen is in `icon_selection.json`, not what this proposes: see `docs/data-icons.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icon_sets
import numpy as np
from emoji_set import fetch, read
from icon_index import Drawn, index, kind_of
from icon_names import KINDS
from icon_set import draw, svg
from icon_unseen import UNSEEN
from PIL import Image, ImageDraw

from radapter.files import write_atomic

HERE = Path(__file__).parent
COPY, OWN_COPY = 0.95, 0.85  # correlation of designers' icons; of one designer's in one kind
OTHER_KIND = 0.999  # of one designer's in two kinds
OF_DESIGNER = 3  # in a class and kind
MOST = {
    "line": {"test": 22, "train": 22, "validation": 5},
    "solid": {"test": 22, "train": 4, "validation": 3},
    "two-tone": {"test": 5, "train": 3, "validation": 2},
    "colour": {"test": 4, "train": 3, "validation": 2},
    "pixel": {"test": 3, "train": 3, "validation": 3},
}
LEAST = {("line", "test"): 3, ("line", "train"): 2, ("solid", "test"): 2}
FAINT = 170  # alpha below which three quarters of a one-colour icon's ink are too light
SPLITS = ("test", "train", "validation")
ROWS, COLUMNS, SIDE, HEIGHT = 24, 44, 36, 47  # of a sheet; pixels of a picture and of a row


@dataclass(frozen=True)
class Candidate:
    """An icon whose name is one of a class."""

    icon: str
    """SET:ICON"""
    family: str
    split: str
    kind: str
    place: int
    """Of its name among those of the class"""
    vector: np.ndarray


def class_names(path: Path) -> dict[str, list[str]]:
    """Classes with the names of their icons, from lines such as `house = home; home page`."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, others = line.partition(" = ")
        if name.strip():
            found[name] = [name, *(o.strip() for o in others.split(";") if o.strip())]
    return found


def candidates(
    classes: dict[str, list[str]], found: dict[str, Drawn], dropped: set[str]
) -> dict[str, list[Candidate]]:
    """By class; a name that two classes have is the first one's."""
    of: dict[str, str] = {}
    for name, names in classes.items():
        for other in names:
            of.setdefault(other, name)
    by_class: dict[str, list[Candidate]] = defaultdict(list)
    for set_name, drawn in found.items():
        family = icon_sets.family(set_name)
        split = icon_sets.side(family)
        if split == "pre-training":
            continue
        for i, words in enumerate(drawn.words):
            icon = f"{set_name}:{drawn.names[i]}"
            kind = kind_of(set_name, drawn.stated[i], drawn.measures[i])
            if words not in of or kind == "other" or icon in dropped:
                continue
            place = classes[of[words]].index(words)
            vector = drawn.vectors[i].astype(np.float32)
            by_class[of[words]].append(Candidate(icon, family, split, kind, place, vector))
    return by_class


def chosen(of_class: list[Candidate]) -> list[Candidate]:
    """Without near copies, at most so many of a designer and of a split."""

    def order(c: Candidate) -> tuple[Any, ...]:
        set_name, _, icon = c.icon.partition(":")
        return SPLITS.index(c.split), c.place, len(icon), set_name, icon

    def copies(a: Candidate, b: Candidate) -> bool:
        limit = COPY
        if a.family == b.family:
            limit = OWN_COPY if a.kind == b.kind else OTHER_KIND
        return float(a.vector @ b.vector) > limit

    distinct: list[Candidate] = []
    times = Counter[tuple[str, str]]()
    ranked = []
    for candidate in sorted(of_class, key=order):
        own = candidate.family, candidate.kind
        if times[own] < OF_DESIGNER and not any(copies(candidate, other) for other in distinct):
            distinct.append(candidate)
            digest = hashlib.sha256(candidate.icon.encode()).hexdigest()
            ranked.append((times[own], digest, candidate))
            times[own] += 1
    kept: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for _, _, candidate in sorted(ranked, key=lambda row: row[:2]):  # the first of each designer
        part = kept[candidate.kind, candidate.split]
        if len(part) < MOST[candidate.kind][candidate.split]:
            part.append(candidate)
    return [candidate for part in kept.values() for candidate in part]


def by_likeness(of_class: list[Candidate]) -> list[Candidate]:
    """Those first that are least like the three nearest ones of other designers."""
    rows = np.stack([c.vector for c in of_class])
    families = np.array([c.family for c in of_class])
    like = rows @ rows.T
    like[families[:, None] == families] = -1
    nearest = np.sort(like, axis=1)[:, -3:].mean(1)
    return [of_class[i] for i in np.argsort(nearest, kind="stable")]


def without_faint(
    by_class: dict[str, list[Candidate]], drawings: dict[str, Any]
) -> dict[str, list[Candidate]]:
    """Two-tone and coloured icons are light on purpose."""

    def faint(candidate: Candidate) -> bool:
        if candidate.kind in ("two-tone", "colour"):
            return False
        alpha = np.asarray(picture(candidate, drawings).getchannel("A"))
        return np.percentile(alpha[alpha > 40], 75) < FAINT

    return {name: [c for c in of_class if not faint(c)] for name, of_class in by_class.items()}


def picture(candidate: Candidate, drawings: dict[str, Any]) -> Image.Image:
    set_name, _, icon = candidate.icon.partition(":")
    return draw(svg(drawings[set_name], icon))


def sheets(proposal: dict[str, list[Candidate]], drawings: dict[str, Any], out: Path) -> int:
    """Write contact sheets; how many."""
    rows = [
        (name, start)
        for name, of_class in proposal.items()
        for start in range(0, len(of_class), COLUMNS)
    ]
    for number, first in enumerate(range(0, len(rows), ROWS)):
        sheet = Image.new("RGB", (COLUMNS * (SIDE + 1) + 4, ROWS * HEIGHT), "white")
        pen = ImageDraw.Draw(sheet)
        for row, (name, start) in enumerate(rows[first : first + ROWS]):
            top = row * HEIGHT
            title = f"{name} ({len(proposal[name])})" if start == 0 else ".."
            pen.text((2, top - 1), title, fill="red")
            for column, candidate in enumerate(proposal[name][start : start + COLUMNS]):
                small = picture(candidate, drawings).resize((SIDE, SIDE), Image.Resampling.BOX)
                left = column * (SIDE + 1) + 2
                sheet.paste(small, (left, top + 11), small)
                if column % 5 == 0 and (start or column >= 10):
                    pen.text((left + 10, top - 1), str(start + column), fill="blue")
        sheet.save(out / f"sheet_{number:02}.png")
    return -(-len(rows) // ROWS)


def main() -> None:
    """Draw, choose, write; print counts to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for what is fetched")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=Path, default=HERE / "icon_classes.txt")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    drops = json.loads((HERE / "icon_drops.json").read_text(encoding="utf-8"))
    classes = class_names(given.classes)
    dropped = {icon for icons in drops.values() for icon in icons}
    by_class = candidates(classes, index(given.cache), dropped)
    used = {c.icon.partition(":")[0] for of_class in by_class.values() for c in of_class}
    with fetch("@iconify/json", *icon_sets.ICONIFY, given.cache) as package:
        drawings = {name: read(package, f"json/{name}.json") for name in sorted(used)}
    by_class = without_faint(by_class, drawings)
    proposal = {}
    for name in [*(n for n in classes if n not in UNSEEN), *(n for n in UNSEEN if n in classes)]:
        of_class = chosen(by_class.get(name, []))
        counts = Counter((c.kind, c.split) for c in of_class)
        if of_class and (name in UNSEEN or all(counts[of] >= n for of, n in LEAST.items())):
            proposal[name] = by_likeness(of_class)
    written = {
        name: {
            kind: icons
            for kind in KINDS
            if (icons := sorted(c.icon for c in of_class if c.kind == kind))
        }
        for name, of_class in proposal.items()
    }
    text = json.dumps(written, ensure_ascii=False, indent=1)
    write_atomic(given.out / "proposal.json", text + "\n")
    count = sheets(proposal, drawings, given.out)
    pictures = sum(map(len, proposal.values()))
    print(f"{len(proposal)} classes, {pictures:,} pictures, {count} sheets", file=sys.stderr)


if __name__ == "__main__":
    main()
