"""Build the built-in data set `icons`: one concept drawn by many designers.

Usage: ``python benchmarks/icon_set.py [--cache DIR] [--out DIR]``

Needs ``npm`` on the PATH and, beside radapter itself, ``resvg-py==0.5.0`` and ``Pillow==13.0.0``
(the encoder decides the bytes). Users need none of this: the outputs ship with the package.

`icon_selection.json` says which pictures are in it: icons of laboratory families whose names stand
in `icon_classes.txt`, at most three of a designer and kind in a class, no near copies between
designers in a class; all were looked at on contact sheets, and those of `icon_drops.json` dropped.
Writes ``pictures.zip`` (64 x 64 px, lossless WebP: the alpha of one-colour icons, all of
coloured ones), ``icons.json`` (classes, families, kinds, splits), ``NOTICE.md`` and
``LICENSES.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import icon_sets
from emoji_set import fetch, read
from icon_licences import OWN_TEXT, SETS
from icon_names import read_name
from icon_unseen import UNSEEN

from radapter.data import icons
from radapter.files import write_atomic

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
SIZE = 64  # pixels, both sides
HALVES_SEED = "radapter-icons-halves-1"
NOTICE = """\
# Notice for the built-in icons

Written by `benchmarks/icon_set.py`. The pictures are other people's work, under their licences;
`LICENSES.txt` holds their texts with the copyright line of each set. Nobody named here endorses
this project, and all of it comes without warranty.

**Changes made:** from each set a part of the icons was taken, out of npm package `@iconify/json`
{version}; each was drawn at {size} x {size} pixels and stored as WebP, of one-colour icons the
opacity alone. When they are read they are given other colours, sizes and places.

{rows}
"""
LICENCES = """\
Licences of the built-in icons, with the copyright line of each set as its own licence file has it;
NOTICE.md says who made what.
"""


def svg(icons_of_set: dict[str, Any], name: str) -> str:
    """SVG document of an icon; `currentColor` is black. 16 is Iconify's size where none is said."""
    icon = icons_of_set["icons"][name]
    width, height = (icon.get(k, icons_of_set.get(k, 16)) for k in ("width", "height"))
    left, top = (icon.get(k, icons_of_set.get(k, 0)) for k in ("left", "top"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" color="#000" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def draw(document: str) -> Image.Image:
    """An SVG as RGBA, 64 x 64 px; one that is not square is centred."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(
        svg_string=document, width=SIZE, height=SIZE, skip_system_fonts=True
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size != (SIZE, SIZE):
        square = Image.new("RGBA", (SIZE, SIZE))
        square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        picture = square
    return picture


def stored(picture: Image.Image, kind: str) -> bytes:
    """Of a coloured icon all of it, of others the alpha as grey; lossless."""
    from PIL import Image

    if kind != "colour":
        picture = Image.merge("RGB", [picture.getchannel("A")] * 3)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def packed(files: list[tuple[str, bytes]]) -> bytes:
    """A zip archive of (name, content), nothing compressed again: the same bytes anywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            archive.writestr(info, content)
    return buffer.getvalue()


def halves(names: list[str]) -> dict[str, str]:
    """`unseen`, or `base` and `novel` in turn in the order of a seeded hash, by class."""
    seen = [name for name in names if name not in UNSEEN]
    order = sorted(seen, key=lambda n: hashlib.sha256(f"{HALVES_SEED}/{n}".encode()).hexdigest())
    dealt = {name: ("base", "novel")[place % 2] for place, name in enumerate(order)}
    return {name: dealt.get(name, "unseen") for name in names}


def licence_of(info: dict[str, Any]) -> str:
    licence = info["license"]
    return licence.get("spdx") or licence["title"]


def notices(version: str, infos: dict[str, dict], counts: Counter[str]) -> tuple[str, str]:
    """NOTICE.md and LICENSES.txt."""
    rows = []
    for name in sorted(counts):
        info, (where, line) = infos[name], SETS[name]
        author = info["author"]
        address = f", {author['url']}" if author.get("url") else ""
        release = f" {info['version']}" if info.get("version") else ""
        licence = "MIT or Good Boy License" if name in OWN_TEXT else licence_of(info)
        rows.append(
            f"- `{name}`: {info['name']}{release} by {author['name']}{address}; {counts[name]} "
            f"icons; licence: {licence}, read in {where}{f'; {line}' if line else ''}"
        )
    notice = NOTICE.format(version=version, size=SIZE, rows="\n".join(rows))
    parts = [LICENCES]
    texts = HERE / "icon_licence_texts"
    by_licence: dict[str, list[str]] = {}
    for name in sorted(counts):
        key = "Icons8" if name in OWN_TEXT else licence_of(infos[name])
        by_licence.setdefault(key, []).append(name)
    for licence, names in sorted(by_licence.items()):
        lines: dict[str, list[str]] = {}
        for name in names:
            line = SETS[name][1] or f"{infos[name]['author']['name']} (no copyright line)"
            lines.setdefault(line, []).append(name)
        owners = "\n".join(f"{line} ({', '.join(of)})" for line, of in lines.items())
        text = (texts / f"{licence}.txt").read_text(encoding="utf-8")
        parts.append(f"{'=' * 80}\n{licence}\n\n{owners}\n\n{text}")
    return notice, "\n".join(parts)


def described(selection: dict[str, dict[str, list[str]]], infos: dict[str, dict]) -> dict[str, Any]:
    """`icons.json`, but for the hash of the pictures."""
    names = list(selection)
    half = halves(names)
    pictures = [
        [icon, place, kind]
        for place, name in enumerate(names)
        for kind, of_kind in selection[name].items()
        for icon in sorted(of_kind)
    ]
    sets = sorted({icon.split(":")[0] for icon, _, _ in pictures})
    others: dict[int, set[str]] = {}
    for icon, place, _ in pictures:
        read_as = read_name(*icon.split(":"))
        if read_as and read_as[0] != names[place]:
            others.setdefault(place, set()).add(read_as[0])
    return {
        "package": ["@iconify/json", *icon_sets.ICONIFY],
        "sets": {
            name: {
                "family": icon_sets.family(name),
                "split": icon_sets.side(icon_sets.family(name)),
                "author": infos[name]["author"]["name"],
                "licence": "MIT" if name in OWN_TEXT else licence_of(infos[name]),
            }
            for name in sets
        },
        "classes": [
            {"name": name, "half": half[name], "names": sorted(others.get(place, ()))}
            for place, name in enumerate(names)
        ],
        "pictures": pictures,
    }


def main() -> None:
    """Fetch, draw, write; print counts to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder for the npm tarball, kept")
    parser.add_argument("--out", type=Path, default=Path(icons.__file__).parent)
    arguments = parser.parse_args()
    selection = json.loads((HERE / "icon_selection.json").read_text(encoding="utf-8"))
    used = {
        icon.split(":")[0] for kinds in selection.values() for k in kinds.values() for icon in k
    }
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        with fetch("@iconify/json", *icon_sets.ICONIFY, cache) as package:
            infos = read(package, "collections.json")
            drawings = {name: read(package, f"json/{name}.json") for name in sorted(used)}
    table = described(selection, infos)
    wrong = sorted(
        name
        for name, facts in table["sets"].items()
        if facts["licence"] not in icon_sets.PERMISSIVE or facts["split"] == "pre-training"
    )
    if wrong:
        raise ValueError(f"these sets may not be in it: {wrong}")
    files = []
    for number, (icon, _, kind) in enumerate(table["pictures"]):
        name, key = icon.split(":")
        files.append((icons.file_name(number), stored(draw(svg(drawings[name], key)), kind)))
    archive = packed(files)
    table["sha256"] = hashlib.sha256(archive).hexdigest()
    counts = Counter(icon.split(":")[0] for icon, _, _ in table["pictures"])
    notice, licences = notices(icon_sets.ICONIFY[0], infos, counts)
    write_atomic(arguments.out / "pictures.zip", archive)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table.pop("pictures"))
    head = json.dumps(table, ensure_ascii=False, indent=1)
    write_atomic(arguments.out / "icons.json", f'{head[:-2]},\n "pictures": [\n{rows}\n ]\n}}\n')
    write_atomic(arguments.out / "NOTICE.md", notice)
    write_atomic(arguments.out / "LICENSES.txt", licences)
    print(f"{len(files)} pictures of {len(counts)} sets, {len(archive):,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
