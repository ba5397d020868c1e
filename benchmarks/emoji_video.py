"""Build the built-in set of animated emoji: strips of eight frames, split by what they show.

Usage: ``python benchmarks/emoji_video.py --listed CLONE [--cache DIR] [--out DIR]``

Needs ``npm`` and ``git`` on the PATH and ``Pillow==13.0.0`` (the encoder decides the bytes). CLONE
is of github.com/microsoft/fluentui-emoji-animated, made with ``git clone --filter=blob:limit=100k
--no-checkout``: its metadata says which emoji Microsoft has put under the MIT licence; no other
clip is taken. Users need none of this: the outputs ship with the package.

Writes ``clips.tar`` (one ``<hexcode>.webp`` a clip, its frames side by side), ``clips.json``
(names, keywords, groups, folds) and ``NOTICE.md`` (licences, attribution).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from emoji_set import SIZE, bare, fetch, load_concepts, shard
from emoji_set_sources import EMOJIBASE
from PIL import Image

from radapter.data import emoji, emoji_video
from radapter.files import write_atomic

QUALITY = 85  # WebP quality, 0 to 100
FOLD_SEED = "radapter-emoji-video-folds-1"
COMMIT = "daa0365c09795789ed2bc6e8b228c97736cb6669"
VERSION = "1.0.0"
PACKAGES = {  # npm package: sha256 of its tarball
    "@lobehub/fluent-emoji-anim-1": (
        "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea"
    ),
    "@lobehub/fluent-emoji-anim-2": (
        "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0"
    ),
    "@lobehub/fluent-emoji-anim-3": (
        "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43"
    ),
    "@lobehub/fluent-emoji-anim-4": (
        "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3"
    ),
}
TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
WHO = re.compile(r"^(man|woman|person|men|women|people)(: | )")
CREDIT = (
    f"- `fluent-emoji-anim`: npm packages `@lobehub/fluent-emoji-anim-1` to `-4` {VERSION}; "
    "licence: MIT; Copyright (c) 2023 LobeHub, https://github.com/lobehub/fluent-emoji; the "
    "drawings: Copyright (c) Microsoft Corporation, "
    "https://github.com/microsoft/fluentui-emoji-animated, licence: MIT"
)
NOTICE = """\
# Notice for the built-in animated emoji

Written by `benchmarks/emoji_video.py`. The clips and the words are other people's work, under their
licences; `LICENSES.txt` holds their texts. Nobody named here endorses this project, and all of it
comes without warranty.

**Changes made:** of each clip {frames} frames were taken, at equal distances, drawn on a white
background, resized to {size} x {size} pixels and stored side by side as WebP (quality {quality}).
Skin tones, the 24 clocks and files with a single frame were left out; {count} clips are here.
Nothing else was altered.

## Clips

{credit}

Only emoji are here that Microsoft's own repository lists at commit
{commit}, under its MIT licence. The packages are of 2023, and that
repository is of 2024. Whether the files in both are the same byte for byte was not verified: the
repository keeps its pictures in Git LFS.

## Words (`clips.json`)

- npm package `emojibase-data` {emojibase}; licence: MIT; Copyright (c) 2017-2019 Miles Johnson,
  https://github.com/milesj/emojibase. Names, keywords, groups and subgroups were selected from it,
  put in lower case, and the folds were added.
- The names, keywords and groups go back to the Unicode emoji data and CLDR; licence: Unicode-3.0;
  Copyright (c) 2004-2025 Unicode, Inc., https://www.unicode.org/license.txt
"""


def listed(clone: Path) -> set[str]:
    """The emoji in Microsoft's own repository, as `bare` writes them."""
    found = subprocess.run(
        ["git", "-C", str(clone), "grep", "-h", '"unicode"', COMMIT, "--", "*/metadata.json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    codes = re.findall(r'"unicode": "([0-9a-f ]+)"', found)
    return {bare(code.strip().replace(" ", "-")) for code in codes}


def strip(content: bytes) -> bytes | None:
    """A clip's frames, side by side; None if it is a still picture."""
    clip: Any = Image.open(io.BytesIO(content))
    number = getattr(clip, "n_frames", 1)
    if number < 2:
        return None
    picture = Image.new("RGB", (emoji_video.FRAMES * SIZE, SIZE))
    for place in range(emoji_video.FRAMES):
        clip.seek((2 * place + 1) * number // (2 * emoji_video.FRAMES))
        side = max(clip.size)
        frame = Image.new("RGBA", (side, side), "white")
        corner = (side - clip.width) // 2, (side - clip.height) // 2
        frame.alpha_composite(clip.convert("RGBA"), corner)
        frame = frame.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        picture.paste(frame, (place * SIZE, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return buffer.getvalue()


def family(name: str) -> str:
    """What the man, the woman and the person of one drawing have in common."""
    return WHO.sub("", name)


def add_folds(clips: list[dict[str, Any]]) -> None:
    """Set "fold": one for a family; that of the built-in emoji, where these have one of it."""
    known = {bare(concept["hexcode"]): concept["fold"] for concept in emoji.concepts()}
    of_family: dict[str, int] = {}
    for clip in clips:
        fold = known.get(bare(clip["hexcode"]))
        if fold is not None and of_family.setdefault(family(clip["name"]), fold) != fold:
            print(f"{clip['name']}: of fold {fold} as a picture", file=sys.stderr)
    for clip in clips:
        own = family(clip["name"])
        digest = hashlib.sha256(f"{FOLD_SEED}/{own}".encode()).hexdigest()
        clip["fold"] = of_family.setdefault(own, int(digest, 16) % emoji.FOLDS)


def main() -> None:
    """Fetch, choose, draw, write; print counts to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--listed", type=Path, required=True, help="clone of Microsoft's repository"
    )
    parser.add_argument("--cache", type=Path, help="folder for the npm tarballs (720 MB), kept")
    parser.add_argument("--out", type=Path, default=emoji_video.HERE)
    arguments = parser.parse_args()
    wanted = listed(arguments.listed)
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        with fetch("emojibase-data", *EMOJIBASE, cache) as package:
            words = {bare(code): own for code, own in load_concepts(package).items()}
        strips: dict[str, bytes] = {}
        for name, sha256 in PACKAGES.items():
            with fetch(name, VERSION, sha256, cache) as package:
                for member in package:
                    path = Path(member.name)
                    code = bare(path.stem)
                    if path.suffix != ".webp" or code not in wanted or code not in words:
                        continue
                    if TONES & {*code.split("-")} or re.search(
                        "o.clock|-thirty", words[code]["name"]
                    ):
                        continue
                    file = package.extractfile(member)
                    assert file is not None
                    if own := strip(file.read()):
                        strips[code] = own
    clips = [words[code] for code in sorted(strips)]
    add_folds(clips)
    files = {words[code]["hexcode"]: own for code, own in strips.items()}
    write_atomic(arguments.out / "clips.tar", shard(files))
    text = json.dumps(clips, ensure_ascii=False, indent=1) + "\n"
    write_atomic(arguments.out / "clips.json", text)
    notice = NOTICE.format(
        frames=emoji_video.FRAMES, size=SIZE, quality=QUALITY, credit=CREDIT, commit=COMMIT,
        emojibase=EMOJIBASE[0], count=len(clips),
    )  # fmt: skip
    write_atomic(arguments.out / "NOTICE.md", notice)
    folds = sorted(Counter(clip["fold"] for clip in clips).items())
    print(f"{len(clips)} clips, by fold {folds}", file=sys.stderr)


if __name__ == "__main__":
    main()
