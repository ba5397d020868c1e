"""Build the built-in edits of emoji: pairs of concepts with what is to be changed, by rule.

Usage: ``python benchmarks/emoji_edits.py [--cache DIR] [--out DIR]``

Needs what ``emoji_set.py`` needs, and runs after it. Writes ``edits.json``, and ``further.zip``:
pictures, in five styles, of concepts that edits name and that the other three styles have not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from emoji_edit_rules import edits, figure
from emoji_set import SAME, match, render, sources, svg
from emoji_set_sources import FLAT, STYLES
from PIL import Image

from radapter.data import emoji
from radapter.files import write_atomic

FIVE = ("noto", "twemoji", "fluent-emoji", FLAT, "fluent-emoji-high-contrast")
FOLD_SEED = "radapter-emoji-edits-1"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def further_concepts(concepts: dict[str, dict], matched: dict[str, dict[str, str]]) -> list[dict]:
    """The concepts of the five styles that edits name and that are not built in, with their folds.

    What differs from a concept in gender or hair alone has its fold, so that all of a base are on
    one side of a split.
    """
    known = emoji.concepts()
    names = {c["name"]: c["name"] for c in concepts.values()}
    folds = {}
    for concept in known:
        folds.setdefault(figure(concept["name"], names).base, concept["fold"])
    # Of those that face right some styles have mirrored pictures and some the same ones.
    there = {
        code
        for code in set.intersection(*(set(matched[style]) for style in FIVE))
        if not concepts[code]["name"].endswith("facing right")
    }
    rows = edits({concepts[code]["name"]: concepts[code]["subgroup"] for code in there})
    used = {name for row in rows for name in (row.reference, row.target)}
    found = []
    for hexcode in sorted(there - {concept["hexcode"] for concept in known}):
        if concepts[hexcode]["name"] not in used:
            continue
        base = figure(concepts[hexcode]["name"], names).base
        drawn = int(hashlib.sha256(f"{FOLD_SEED}/{base}".encode()).hexdigest(), 16)
        kept = {key: concepts[hexcode][key] for key in ("hexcode", "name", "subgroup")}
        found.append(kept | {"fold": folds.get(base, drawn % emoji.FOLDS)})
    return found


def alike(pictures: list[Image.Image]) -> set[int]:
    """The places of pictures that look the same as another one of the style."""
    rows = np.stack([np.asarray(picture, np.float64).ravel() for picture in pictures])
    sizes = (rows**2).sum(axis=1)
    squares = (sizes[:, None] + sizes[None] - 2 * rows @ rows.T) / rows.shape[1]
    np.fill_diagonal(squares, np.inf)
    return set(np.flatnonzero((squares < SAME**2).any(axis=1)).tolist())


def archive(files: dict[str, bytes]) -> bytes:
    """A zip of pictures as they are: sorted, no times: the same bytes anywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as written:
        for name in sorted(files):
            written.writestr(zipfile.ZipInfo(name, ZIP_DATE), files[name])
    return buffer.getvalue()


def main() -> None:
    """Fetch, match, render, write; print counts to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder for the npm tarballs, kept")
    parser.add_argument("--out", type=Path, default=Path(emoji.__file__).parent)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        concepts, icons, chars = sources(cache)
    matched = match(concepts, icons, chars)
    further = further_concepts(concepts, matched)
    every = [*emoji.concepts(), *further]
    place = {concept["name"]: i for i, concept in enumerate(every)}
    files: dict[str, bytes] = {}
    same: dict[str, list[int]] = {}
    for style in STYLES:
        pictures = [emoji.picture(style, concept["hexcode"]) for concept in emoji.concepts()]
        for concept in further if style in FIVE else []:
            code = concept["hexcode"]
            picture, files[f"{style}/{code}"] = render(svg(icons[style], matched[style][code]))
            pictures.append(picture)
        same[style] = sorted(alike(pictures))
    rows = edits({concept["name"]: concept["subgroup"] for concept in every})
    texts = sorted({row.text for row in rows})
    kinds = {
        kind: [[place[r.reference], place[r.target], texts.index(r.text)] for r in group]
        for kind, group in itertools.groupby(sorted(rows), key=lambda row: row.kind)
    }
    content = {"further": further, "further_styles": FIVE, "texts": texts, "kinds": kinds,
               "alike": same}  # fmt: skip
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    write_atomic(arguments.out / "edits.json", text.replace('],"', '],\n"') + "\n")
    write_atomic(arguments.out / "further.zip", archive(files))
    built_in = len(emoji.concepts())
    inside = Counter(
        kind for kind, own in kinds.items() for r, t, _ in own if max(r, t) < built_in
    )  # fmt: skip
    print(
        f"{len(further)} further concepts, {len(rows)} edits, {len(texts)} texts", file=sys.stderr
    )
    for kind, own in kinds.items():
        print(f"  {kind}: {len(own)}, {inside[kind]} among the shared concepts", file=sys.stderr)
    print({style: len(own) for style, own in same.items()}, file=sys.stderr)


if __name__ == "__main__":
    main()
