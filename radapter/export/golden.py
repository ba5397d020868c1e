"""Golden files: inputs with their expected outputs, so that a program in any language can test
its tokenizer, its preprocessing and its engine against PyTorch without PyTorch.

    golden/golden.json         texts with their token ids, files and tolerances
    golden/picture_0.png ...   three pictures
    golden/pixel_values.npy    what preprocessing makes of them, [3, 3, height, width], float32
    golden/image_embeds.npy    their features [3, dim], float32, unit norm
    golden/text_embeds.npy     features of the texts in the list `equal`, [texts, dim]
    golden/video_embeds.npy    of a model of clips: features of `clips`, each a list of which
                               picture each frame is; frames that it has no number for are NaN
    golden/NOTICE.md           whose pictures they are, if they are not drawn ones
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from PIL import Image, ImageDraw

from radapter import bundle, models
from radapter.errors import GateFailed
from radapter.evaluation.parity import TOLERANCES
from radapter.export.cases import Cases
from radapter.models.frames import filled_up, most_frames
from radapter.runtimes.opened import BundleTokenizer
from radapter.runtimes.pytorch import PyTorchRuntime

FOLDER, FILE, NOTICE = "golden", "golden/golden.json", "golden/NOTICE.md"
FILES = {n: f"{FOLDER}/{n}.npy" for n in ("pixel_values", *(t.output for t in bundle.TOWERS))}
VIDEO_FILE = f"{FOLDER}/{bundle.VIDEO_TOWER.output}.npy"
PICTURES = 3
PIXEL_TOLERANCE, FEATURE_TOLERANCE = 1e-5, 1e-4

EQUAL = (
    "a photo of a cat",
    "Café déjà-vu naïve",
    "ÅNGSTRÖM e\u0301 decomposed",
    "3 cats, 1,024 in 1999",
    "½ ² Ⅻ",
    "It's the dog's; they've, we'll, I'd, I'm, you're",
    "DON'T SHOUT'S 'twas",
    "two  spaces",
    "tab\tand\nline\r\n end  ",
    "\u00a0no-break\u3000space",
    "🙂 👍🏽 👩\u200d🚀 🇫🇷 emoji",
    "一只猫在垫子上 中文",
    "кошка на ковре",
    "قطة",
    "कुत्ता",
    "한국어 고양이",
    "hello_world #tag @you 50%",
    "wow! really?!",
    "!",
    "A.B.C. http://x.y/z?q=1",
    "dash – em — dash…",
    "ẞ ß İstanbul",
    "",
    " ",
    "word " * 100,
    "x" * 300,
    "🙂" * 90,
)
"""Texts on which tokenizer.json has to give open_clip's ids"""
DIFFERENT = (
    "“curly” quotes",
    "it’s",
    "ﬁne ligature",
    "ＦＵＬＬ width",
    "ﾊﾛｰ",
    "&amp; &lt;b&gt;",
    "schÃ¶n",
    "a\x00b",
    "\x1b[31mred",
    "\ufeffbom",
    "ΟΔΟΣ ΣΊΣΥΦΟΣ",
    "<|endoftext|>",
    "<start_of_text>",
)
"""Texts on which it is known not to: open_clip repairs them first, which no tokenizer.json can"""


def write(
    folder: Path,
    loaded: models.LoadedModel,
    *,
    dynamic: bool,
    pictures: Sequence[Image.Image] | None = None,
    notice: str = "",
) -> dict[str, Cases]:
    """Write the golden files of a bundle that has its tokenizer.

    Args:
        folder: the bundle.
        loaded: the model.
        dynamic: whether its texts may be short.
        pictures: at least three; None: drawn ones. Whoever gets the bundle gets them.
        notice: whose they are.

    Returns:
        The inputs to verify the towers with, by file name.

    Raises:
        GateFailed: tokenizer.json does not give open_clip's ids where it has to.
    """
    (folder / FOLDER).mkdir()
    reference = PyTorchRuntime(loaded)
    chosen = (
        [p.convert("RGB") for p in pictures]
        if pictures
        else drawn(*models.image_size(loaded.model))
    )
    files = [f"{FOLDER}/picture_{number}.png" for number in range(PICTURES)]
    for file, picture in zip(files, chosen, strict=False):
        picture.save(folder / file)
    if notice:
        (folder / NOTICE).write_text(notice, encoding="utf-8", newline="\n")
    pixels = torch.stack([loaded.preprocess(Image.open(folder / file)) for file in files])

    equal, different = token_ids(folder, loaded, dynamic=dynamic)
    longest = max(len(row["ids"]) for row in equal)
    ids = torch.stack([F.pad(torch.tensor(r["ids"]), (0, longest - len(r["ids"]))) for r in equal])
    given = {"pixel_values": pixels, "input_ids": ids}
    arrays, shown = {"pixel_values": pixels}, {}
    more: dict[str, Any] = {}
    if frames := most_frames(loaded.model):
        clips = [[(first + k) % PICTURES for k in range(frames)] for first in range(PICTURES)]
        clips[-1] = clips[-1][: -(-frames // 2)]
        filled = [filled_up(pixels[clip][None], frames) for clip in clips]
        given[bundle.VIDEO_TOWER.input] = torch.cat(filled)
        more = {bundle.VIDEO_TOWER.output: VIDEO_FILE, "frames": frames, "clips": clips}
    for tower in bundle.towers(frames):
        arrays[tower.output] = getattr(reference, tower.encode)(given[tower.input])
        shown[tower.file] = {"golden": (given[tower.input], arrays[tower.output])}
    for name, array in arrays.items():
        np.save(
            folder / FOLDER / f"{name}.npy", array.numpy().astype(np.float32), allow_pickle=False
        )
    content = {
        "pictures": files,
        **FILES,
        **more,
        "tolerance": {
            "pixel_values": PIXEL_TOLERANCE,
            "embeds, fp32": FEATURE_TOLERANCE,
            **{f"worst cosine, {name}": limits.cosine for name, limits in TOLERANCES.items()},
        },
        "texts": {"equal": equal, "different": different},
    }
    bundle.write_json(folder / FILE, content)
    return shown


def plan(loaded: models.LoadedModel) -> dict[str, int]:
    """What `write` would write: bytes by file name, near enough."""
    (height, width), dim = models.image_size(loaded.model), loaded.config["model_cfg"]["embed_dim"]
    pictures = {f"{FOLDER}/picture_{number}.png": 3 * height * width for number in range(PICTURES)}
    sizes = (36 * height * width, 12 * dim, 4 * len(EQUAL) * dim)
    arrays = dict(zip(FILES.values(), sizes, strict=False))
    return {**pictures, **arrays, FILE: 4 * 10**4}


def token_ids(
    folder: Path, loaded: models.LoadedModel, *, dynamic: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The two lists of texts, each with the `ids` that tokenizer.json gives for it alone; where
    they are not open_clip's, with `open_clip_ids` too.

    Raises:
        GateFailed: a text is not equal that has to be: those of `EQUAL` for CLIP's tokenizer, for
            others those that open_clip's own cleaning, which no tokenizer.json has, leaves alone.
    """
    facts = {
        "context_length": loaded.context_length,
        "text_length": "dynamic" if dynamic else "fixed",
    }
    theirs = BundleTokenizer(folder, facts)
    clean = getattr(loaded.tokenizer, "clean_fn", str)
    equal: list[dict[str, Any]] = []
    different: list[dict[str, Any]] = []
    for text in (*EQUAL, *DIFFERENT):
        ids = theirs([text])[0].tolist()
        ours = models.shorten(loaded.model, loaded.tokenizer([text]))[0].tolist()
        clips = isinstance(loaded.tokenizer, SimpleTokenizer)
        if ids == ours:
            equal.append({"text": text, "ids": ids})
        elif text in EQUAL if clips else clean(text) == text:
            raise GateFailed(
                f"tokenizer.json does not give open_clip's token ids for {text[:40]!r}: "
                f"{ids[:12]}, not {ours[:12]}. No bundle was written."
            )
        else:
            different.append({"text": text, "ids": ids, "open_clip_ids": ours})
    return equal, different


def drawn(height: int, width: int) -> list[Image.Image]:
    """Three pictures for a model that takes height x width pixels: a wide one, a high one, and a
    grey one smaller than that. Smooth and with edges, so that a wrong filter shows."""
    pictures = []
    for number, (columns, rows) in enumerate(
        ((2 * width + 7, height + 13), (width + 5, 3 * height // 2), (3 * width // 4, height // 2))
    ):
        y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
        waves = [
            np.sin(2 * np.pi * ((2 + number) * x + (1 + colour) * y + colour / 3))
            for colour in range(3)
        ]
        picture = Image.fromarray((127.5 + 110 * np.stack(waves, axis=2)).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        pen.ellipse((columns // 4, rows // 5, columns // 2, rows // 2), fill=(230, 40, 30))
        box = (columns // 2, rows // 3, 3 * columns // 4, 4 * rows // 5)
        pen.rectangle(box, fill=(20, 60, 200), outline=(255, 255, 255))
        pen.line((0, rows - 1, columns - 1, 0), fill=(10, 10, 10), width=1 + rows // 40)
        pictures.append(picture.convert("L") if number == 2 else picture)
    return pictures
