"""The masks of the built-in emoji: which pixels of each picture are drawn, of all styles.

Usage: ``python benchmarks/emoji_masks.py --cache DIR``

Needs what `emoji_set.py` needs. The SVGs of the pinned packages are drawn without a ground; a pixel
is the emoji's where it is at least half opaque. ``radapter/data/emoji/masks.xz`` has a bit a pixel,
style by style and concept by concept in the order of `emoji.styles()` and `emoji.concepts()`. Each
drawing is compared with the picture that is shipped, so that a mask cannot be another's.
"""

from __future__ import annotations

import argparse
import io
import lzma
from pathlib import Path

import numpy as np
import resvg_py
from emoji_set import SIZE, match, sources, svg
from PIL import Image

from radapter.data import emoji
from radapter.files import write_atomic

SAME = 30.0  # root mean square difference from the shipped picture, in grey levels of 255


def drawn(document: str) -> Image.Image:
    """An SVG on nothing, RGBA of 64 x 64, an icon that is not square in the middle."""
    png = resvg_py.svg_to_bytes(
        svg_string=document, width=SIZE, height=SIZE, skip_system_fonts=True
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size != (SIZE, SIZE):
        square = Image.new("RGBA", (SIZE, SIZE))
        square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        picture = square
    return picture


def main() -> None:
    """Fetch, draw, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the npm tarballs")
    cache = parser.parse_args().cache
    concepts, icons, chars = sources(cache)
    matched = match(concepts, icons, chars)
    bits, worst = [], 0.0
    for style in emoji.styles():
        for concept in emoji.concepts():
            code = concept["hexcode"]
            picture = drawn(svg(icons[style], matched[style][code]))
            white = Image.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture.getchannel("A"))
            shipped = np.asarray(emoji.picture(style, code), float)
            off = np.sqrt(((np.asarray(white, float) - shipped) ** 2).mean())
            worst = max(worst, off)
            if off > SAME:
                raise ValueError(f"{style}/{code}: {off:.1f} from the picture that is shipped")
            bits.append(np.asarray(picture.getchannel("A")) >= 128)
    content = lzma.compress(np.packbits(np.stack(bits)).tobytes(), preset=9)
    write_atomic(emoji.HERE / emoji.MASKS, content)
    print(f"{len(bits):,} masks, {len(content):,} bytes; at most {worst:.1f} from the pictures")


if __name__ == "__main__":
    main()
