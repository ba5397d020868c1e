"""Build the built-in data set: one concept drawn by many designers.

Usage: ``python benchmarks/emoji_set.py [--cache DIR] [--out DIR]``

Needs ``npm`` on the PATH and, beside radapter itself, ``resvg-py==0.5.0`` and ``Pillow==13.0.0``
(the encoder decides the bytes). Users need none of this: the outputs ship with the package.

Writes ``{style}.tar`` (a WebDataset shard, one ``<hexcode>.webp`` of 64 x 64 px per concept),
``concepts.json`` (names, keywords, groups, folds) and ``NOTICE.md`` (licences, attribution).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emoji_set_sources import EMOJIBASE, FLAT, LICENCES, NOTICE, STYLES

from radapter.data import emoji
from radapter.files import file_hash, write_atomic

if TYPE_CHECKING:
    from PIL import Image

SIZE = 64  # pixels, both sides
QUALITY = 85  # WebP quality, 0 to 100
FOLD_SEED = "radapter-emoji-folds-1"

# CLDR subgroup keys that are not words; every other key only loses its hyphens.
SUBGROUP_WORDS = {"alphanum": "alphanumeric symbol", "av-symbol": "audio video symbol"}

# Concepts left out after looking at every picture: hexcode: reason. "Same as" means a picture that
# cannot be told from another concept's (rms difference under SAME); of such concepts one stays.
DROPPED = {
    "1F997": "cricket: noto-v1 and both emojione sets have only the game, not the insect",
    "1F471-200D-2642-FE0F": "man: blond hair: emojione has only the person",
    "1F52B": "water pistol: noto-v1 and both emojione sets draw a revolver",
    "2B1C": "white large square: next to blank in twemoji and noto-v1",
    "1F63A": "grinning cat: same as cat face in fluent-emoji-flat",
    "1F533": "white square button: same as black medium square in fluent-emoji-flat",
    "1F4C0": "dvd: same as optical disk in fluent-emoji-high-contrast",
    "1F621": "enraged face: same as angry face in fluent-emoji-high-contrast",
    "2754": "white question mark: same as the red one in fluent-emoji-high-contrast",
    "2755": "white exclamation mark: same as the red one in fluent-emoji-high-contrast",
    "1F537": "large blue diamond: same as the orange one in both one-colour sets",
    "1F539": "small blue diamond: same as the orange one in both one-colour sets",
    "1F534": "red circle: same as new moon in emojione-monotone",
    "1F535": "blue circle: same as new moon in emojione-monotone",
    "26AB": "black circle: same as new moon in emojione-monotone",
    "26AA": "white circle: same as full moon in emojione-monotone",
    "1F49A": "green heart: same as blue heart in emojione-monotone",
    "1F49C": "purple heart: same as blue heart in emojione-monotone",
    "1F518": "radio button: same as record button in emojione-monotone",
    "274C": "cross mark: same as multiply in emojione-monotone",
    "2733": "eight-spoked asterisk: same as eight-pointed star in emojione-monotone",
}
SAME = 2.0  # root mean square difference of two pictures, in grey levels of 255
BLANK = 3.0  # standard deviation of a picture, in grey levels of 255


def fetch(package: str, version: str, sha256: str, cache: Path) -> tarfile.TarFile:
    """Fetch an npm package into `cache`, check its hash, and open it.

    Raises:
        ValueError: the tarball is not the pinned one.
    """
    path = cache / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", str(cache), f"{package}@{version}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    found = file_hash(path)
    if found != sha256:
        raise ValueError(
            f"{path.name}: sha256 is {found}, pinned is {sha256}; delete the file and run again"
        )
    return tarfile.open(path)


def read(package: tarfile.TarFile, name: str) -> Any:
    """Parse one JSON file of an npm package."""
    file = package.extractfile(f"package/{name}")
    if file is None:
        raise ValueError(f"package/{name} is no file")
    return json.load(file)


def slug(text: str) -> str:
    """Icon name of a CLDR short name: ASCII, lower case, words joined by hyphens, signs spelt."""
    for sign, word in (("!", " exclamation"), ("#", "pound"), ("*", "asterisk")):
        text = text.replace(sign, word)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['’“”.]", "", text)).strip("-")


def bare(hexcode: str) -> str:
    """Code points without the emoji presentation selector, which the sets write differently."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def load_concepts(emojibase: tarfile.TarFile) -> dict[str, dict]:
    """Concepts by hexcode (emojibase spelling, sorted), without flags, skin tones and components.

    Skin-toned variants are nested under their neutral form in the source, so they are never seen.
    """
    messages = read(emojibase, "en/messages.json")
    group_words = {g["key"]: g["message"] for g in messages["groups"]}
    keys = read(emojibase, "meta/groups.json")
    concepts = {}
    for entry in sorted(read(emojibase, "en/data.json"), key=lambda e: e["hexcode"]):
        group = keys["groups"].get(str(entry.get("group")))
        if group in (None, "component", "flags"):
            continue
        subgroup = keys["subgroups"][str(entry["subgroup"])]
        concepts[entry["hexcode"]] = {
            "hexcode": entry["hexcode"],
            "name": entry["label"].lower(),
            "keywords": [tag.lower() for tag in entry["tags"]],
            "group": group_words[group],
            "subgroup": SUBGROUP_WORDS.get(subgroup, subgroup.replace("-", " ")),
        }
    return concepts


def svg(icons: dict, name: str) -> str:
    """SVG document of an icon or alias; `currentColor` (one-colour sets) becomes black."""
    alias = icons["aliases"].get(name, {})
    icon = icons["icons"][alias.get("parent", name)]
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"]
    if alias.get("hFlip"):
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" color="#000" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def match(
    concepts: dict[str, dict], icons: dict[str, dict], chars: dict[str, dict]
) -> dict[str, dict[str, str]]:
    """Match concepts to icons: {style: {hexcode: icon name}}.

    By code point where the set has a table, then by today's CLDR name (the tables leave out the
    mirrored icons). fluent-emoji has no table but shares the names of its flat sister. Others are
    matched by today's CLDR name, the names the tables give, and the older names that noto and
    twemoji keep as aliases.
    """
    tables = {
        style: {bare(code): name for code, name in table.items()}
        for style, table in chars.items()
        if table
    }
    tables["fluent-emoji"] = tables[FLAT]
    old_names: dict[str, list[str]] = defaultdict(list)
    for style in ("noto", "twemoji"):
        for alias, value in icons[style]["aliases"].items():
            old_names[value["parent"]].append(alias)
    matched: dict[str, dict[str, str]] = {}
    for style, data in icons.items():
        found = matched[style] = {}
        for hexcode, concept in concepts.items():
            today = slug(concept["name"])
            if style in tables:
                names = [tables[style].get(bare(hexcode)), today]
            else:
                given = [tables[s].get(bare(hexcode)) for s in ("noto", "twemoji", FLAT)]
                names = list(dict.fromkeys([today, *given]))
                names += [old for other in names for old in old_names.get(other or "", [])]
            # An alias can be wrong where the set lacks the thing, so real icons go first.
            there = [n for kind in ("icons", "aliases") for n in names if n in data[kind]]
            if there:
                found[hexcode] = there[0]
    return matched


def render(document: str) -> tuple[Image.Image, bytes]:
    """Draw an SVG on white: (RGB picture of 64 x 64 px, the same as the bytes of a WebP file)."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(
        svg_string=document, background="#ffffff", width=SIZE, height=SIZE, skip_system_fonts=True
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if picture.size != (SIZE, SIZE):  # an icon that is not square: centre it
        square = Image.new("RGB", (SIZE, SIZE), "white")
        square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        picture = square
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return picture, buffer.getvalue()


def doubtful(pictures: dict[str, Image.Image]) -> list[str]:
    """Findings on the {hexcode: picture} of one style: blank pictures, pairs that look the same."""
    names = list(pictures)
    pixels = np.stack([np.asarray(picture, np.float64) for picture in pictures.values()])
    spread = pixels.std(axis=(1, 2)).max(axis=1)
    findings = [f"blank picture: {names[i]}" for i in np.flatnonzero(spread < BLANK)]
    rows = pixels.reshape(len(names), -1)
    for i, row in enumerate(rows):
        difference = np.sqrt(((rows[i + 1 :] - row) ** 2).mean(axis=1))
        same = i + 1 + np.flatnonzero(difference < SAME)
        findings += [f"same picture: {names[i]} and {names[j]}" for j in same]
    return findings


def add_folds(concepts: list[dict]) -> None:
    """Set "fold": concepts of a subgroup dealt out in turn, in the order of a seeded hash.

    The first fold of a subgroup is drawn from its name, so that dropping a concept moves only
    concepts of its own subgroup.
    """

    def seeded(text: str) -> int:
        return int(hashlib.sha256(f"{FOLD_SEED}/{text}".encode()).hexdigest(), 16)

    subgroups = defaultdict(list)
    for concept in concepts:
        subgroups[concept["subgroup"]].append(concept)
    for subgroup, members in subgroups.items():
        for place, concept in enumerate(sorted(members, key=lambda c: seeded(c["hexcode"]))):
            concept["fold"] = (seeded(subgroup) + place) % emoji.FOLDS


def shard(files: dict[str, bytes]) -> bytes:
    """Tar archive of {hexcode: WebP file}: sorted, no times, no owners: the same bytes anywhere."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for hexcode in sorted(files):
            member = tarfile.TarInfo(f"{hexcode}.webp")
            member.size = len(files[hexcode])
            tar.addfile(member, io.BytesIO(files[hexcode]))
    return buffer.getvalue()


def sources(cache: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the pinned packages hold: the concepts, and by style the icons and their code points."""
    with fetch("emojibase-data", *EMOJIBASE, cache) as package:
        concepts = load_concepts(package)
    icons, chars = {}, {}
    for style, pin in STYLES.items():
        with fetch(f"@iconify-json/{style}", *pin, cache) as package:
            icons[style] = read(package, "icons.json")
            chars[style] = read(package, "chars.json")
    return concepts, icons, chars


def main() -> None:
    """Fetch, match, render, write; print counts and doubtful pictures to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder for the npm tarballs, kept")
    parser.add_argument("--out", type=Path, default=Path(emoji.__file__).parent)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        concepts, icons, chars = sources(cache)
    matched = match(concepts, icons, chars)
    shared = set.intersection(*(set(found) for found in matched.values()))
    unknown = DROPPED.keys() - shared
    if unknown:
        raise ValueError(f"DROPPED names concepts that are not shared: {sorted(unknown)}")
    kept = [concepts[hexcode] for hexcode in sorted(shared - DROPPED.keys())]
    add_folds(kept)
    for style in STYLES:
        pictures, files = {}, {}
        for hexcode in (concept["hexcode"] for concept in kept):
            pictures[hexcode], files[hexcode] = render(svg(icons[style], matched[style][hexcode]))
        for finding in doubtful(pictures):
            print(f"{style}: {finding}", file=sys.stderr)
        write_atomic(arguments.out / f"{style}.tar", shard(files))
    text = json.dumps(kept, ensure_ascii=False, indent=1) + "\n"
    write_atomic(arguments.out / "concepts.json", text)
    rows = [
        f"- `{style}.tar`: npm package `@iconify-json/{style}` {STYLES[style][0]}; "
        f"licence: {licence}; {by}"
        for style, (licence, by) in LICENCES.items()
    ]
    notice = NOTICE.format(
        size=SIZE, quality=QUALITY, pictures="\n".join(rows), emojibase=EMOJIBASE[0]
    )
    write_atomic(arguments.out / "NOTICE.md", notice)
    sizes = Counter(concept["subgroup"] for concept in kept)
    print(f"{len(kept)} concepts, {len(DROPPED)} dropped, {len(sizes)} subgroups", file=sys.stderr)


if __name__ == "__main__":
    main()
