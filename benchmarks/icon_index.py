"""Every usable icon of the pinned package, drawn once and measured; kept in a cache folder, a file
for each set.

Needs ``npm`` on the PATH and, beside radapter itself, ``resvg-py==0.5.0``, ``Pillow==13.0.0`` and
``scipy``. `icon_pretraining_list.py` reads it. About ten minutes of one core, on all cores at once.
"""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icon_sets
import numpy as np
from emoji_set import fetch, read
from icon_names import read_name
from icon_set import draw, licence_of, svg

ANIMATED = re.compile(r"<(animate|animateTransform|animateMotion|set)\b|@keyframes")
OPAQUE, HALF = 215, 25  # alpha: from here on ink; from here to there a second tone
FLAT = 12  # largest difference of alpha among neighbours that is no edge
THICK = 3.6  # pixels from the edge of the ink; strokes of line icons are thinner


@dataclass
class Drawn:
    """Icons of one set: what their names say, measures, and small grey versions to compare."""

    names: list[str]
    words: list[str]
    stated: list[str]
    measures: np.ndarray
    """[icons, 7]: pixels of a second tone and of flat ink, largest and thick ink, share of ink,
    of colour, of shades"""
    vectors: np.ndarray
    """[icons, 1024]: 32 x 32, without mean, of length 1"""


def usable(infos: dict[str, Any]) -> list[str]:
    """Permissive sets that are not left out."""
    left_out = {name for names in icon_sets.LEFT_OUT.values() for name in names}
    return [
        name
        for name, info in sorted(infos.items())
        if licence_of(info) in icon_sets.PERMISSIVE and name not in left_out
    ]


def measured(pixels: np.ndarray) -> tuple[list[float], np.ndarray] | None:
    """Of an RGBA picture: its measures and its small version; None if it is next to blank or
    full."""
    from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

    alpha = pixels[..., 3]
    if (alpha > 40).mean() < 0.004 or (alpha > 128).mean() > 0.97:
        return None
    flat = maximum_filter(alpha, 3).astype(int) - minimum_filter(alpha, 3) < FLAT
    second = (flat & (alpha > HALF) & (alpha < OPAQUE)).sum()
    inside = distance_transform_edt(np.pad(alpha > 100, 1))[1:-1, 1:-1]
    thick = (inside > THICK).sum() / max(1, (inside > 0).sum())
    colours = pixels[..., :3].astype(int)
    ink = colours[alpha > 200]
    colour = float((np.ptp(ink, axis=1) > 40).mean()) if len(ink) else 0.0
    shade = float((ink.max(1) > 60).mean()) if len(ink) else 0.0
    grey = alpha * (1 - colours.mean(-1) / 255 * 0.85)
    small = grey.reshape(32, 2, 32, 2).mean((1, 3)).ravel()
    small -= small.mean()
    values = [second, (flat & (alpha >= OPAQUE)).sum(), inside.max(), thick, (alpha > 128).mean()]
    return [*map(float, values), colour, shade], small / (np.linalg.norm(small) + 1e-6)


def kind_of(set_name: str, stated: str, measures: np.ndarray) -> str:
    """line, solid, two-tone, colour, pixel, or `other`: between them, or not as its name says."""
    second, flat, largest, thick, _, colour, shade = measures
    if set_name in icon_sets.PIXEL:
        return "pixel"
    if colour > 0.15:
        return "colour"
    two = second > 40 and second > 0.08 * (second + flat + 1)
    if stated == "two-tone":
        return "two-tone" if two else "other"
    if two:
        return "two-tone" if second > 120 else "other"
    if shade > 0.1:
        return "other"
    line = thick < (0.08 if stated == "line" else 0.04) and largest < (6 if stated == "line" else 5)
    solid = (
        (largest >= 4.5 and thick > 0.12) if stated == "solid" else (thick > 0.25 and largest > 5)
    )
    if stated != "solid" and line:
        return "line"
    return "solid" if stated != "line" and solid else "other"


def index(cache: Path) -> dict[str, Drawn]:
    """Every usable set, from the cache where it is there."""
    found, written = {}, []
    with (
        fetch("@iconify/json", *icon_sets.ICONIFY, cache) as package,
        ProcessPoolExecutor() as processes,
    ):
        names = usable(read(package, "collections.json"))
        for name in names:
            if not (path := cache / f"{name}.npz").is_file():
                drawings = read(package, f"json/{name}.json")
                written.append(processes.submit(_write, path, name, drawings))
        for each in written:
            each.result()
    for name in names:
        with np.load(cache / f"{name}.npz") as kept:
            texts = (list(map(str, kept[key])) for key in ("names", "words", "stated"))
            found[name] = Drawn(*texts, kept["measures"], kept["vectors"])
    return found


def _write(path: Path, set_name: str, drawings: dict[str, Any]) -> None:
    rows, measures, vectors, alpha, coloured, rgb = [], [], [], [], [], []
    for icon, drawing in sorted(drawings["icons"].items()):
        named = read_name(set_name, icon)
        if drawing.get("hidden") or ANIMATED.search(drawing["body"]) or named is None:
            continue
        try:
            picture = np.asarray(draw(svg(drawings, icon)))
        except Exception:  # a drawing that resvg cannot read: a handful
            continue
        if (found := measured(picture)) is None:
            continue
        if kind_of(set_name, named[1] or "", np.array(found[0])) == "colour":
            coloured.append(len(rows))
            rgb.append(picture[..., :3])
        rows.append((icon, named[0], named[1] or ""))
        measures.append(found[0])
        vectors.append(found[1].astype(np.float16))
        alpha.append(picture[..., 3])
    names, words, stated = zip(*rows, strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial, names=names, words=words, stated=stated, measures=measures, vectors=vectors,
        alpha=np.stack(alpha), coloured=np.array(coloured, int),
        rgb=np.stack(rgb) if rgb else np.zeros((0, 64, 64, 3), np.uint8),
    )  # fmt: skip
    partial.rename(path)
