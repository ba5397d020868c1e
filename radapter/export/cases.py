"""Run exported files in a fresh process on inputs whose features PyTorch gave."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from radapter import bundle, models
from radapter.data.clips import prepared, stacked
from radapter.errors import GateFailed
from radapter.evaluation.parity import tolerance_of
from radapter.export.sample import CLIPS, Sample
from radapter.models.frames import filled_up, most_frames
from radapter.runtimes.pytorch import PyTorchRuntime

TEXTS = ("a cat", "two red balls", "nothing", "a photo of a house by the sea", "blue")
LONG = " ".join("a long text about one thing and another, that goes on and on" for _ in range(20))
ODD = 5  # a batch that is no power of two

Cases = dict[str, tuple[Any, Tensor]]
"""Inputs, a tensor or several by name, and the outputs that PyTorch gives for them, by name"""


class Inputs:
    """What exported files are run on, with PyTorch's features for it."""

    def __init__(
        self, loaded: models.LoadedModel, max_batch: int = ODD, sample: Sample | None = None
    ) -> None:
        self.loaded = loaded
        self.batches = sorted({1, 2, ODD, max_batch})
        self.sample = sample
        self.reference = PyTorchRuntime(loaded)
        self.frames = most_frames(loaded.model)
        """Of a clip; None: a model of pictures"""
        self.towers = bundle.towers(self.frames)
        self._n = max(self.batches)

    @functools.cached_property
    def cases(self) -> dict[str, Cases]:
        """By the tower's name: its input [n, ...] -> features [n, dim]."""
        noise = white_noise(self._n, models.image_size(self.loaded.model))
        short = [TEXTS[i % len(TEXTS)] for i in range(self._n)]
        full = self._tokens([f"{text}, {LONG}" for text in short])
        made = {
            "pixel_values": {"noise": noise, "smooth": blurred(noise)},
            "input_ids": {"short": self._tokens(short), "full": full},
        }
        if self.frames:
            made["pixel_values_videos"] = self._clips(self.frames)
        if self.sample:
            for name, inputs in made.items():
                inputs["training"] = self.training(name, self._n)
        cases: dict[str, Cases] = {}
        for tower in self.towers:
            encode = getattr(self.reference, tower.encode)
            cases[tower.name] = {key: (x, encode(x)) for key, x in made[tower.input].items()}
        return cases

    def _clips(self, frames: int) -> dict[str, Tensor]:
        """White noise, blurred noise, and this with fewer and fewer frames."""
        count = max(ODD, self._n // frames)
        noise = white_noise(count * frames, models.image_size(self.loaded.model))
        smooth = blurred(noise).unflatten(0, (count, frames))
        short = smooth.clone()
        for number, clip in enumerate(short):
            clip[max(1, frames - number) :] = torch.nan
        return {"noise": noise.unflatten(0, (count, frames)), "smooth": smooth, "short": short}

    def pixels(self) -> dict[str, Tensor]:
        """What the image tower is run on, by name."""
        return {name: x for name, (x, _) in self.cases["vision_model"].items()}

    @functools.cached_property
    def pictures(self) -> Cases:
        """pixels [n, height, width, 3], uint8 -> features [n, dim].

        Blurred noise in a size of its own, wider than high, and the first training pictures, each
        in its own size.
        """
        height, width = models.image_size(self.loaded.model)
        noise = np.random.default_rng(0).integers(0, 256, (self._n, height // 4, width // 2, 3))
        drawn = [
            Image.fromarray(x.astype(np.uint8)).resize(
                (3 * width, 2 * height), Image.Resampling.BICUBIC
            )
            for x in noise
        ]
        inputs = {"smooth": drawn}
        for i, picture in enumerate(self.sample.pictures[:8] if self.sample else ()):
            inputs[f"training {i}"] = [picture.convert("RGB")]
        cases: Cases = {}
        for name, group in inputs.items():
            pixels = torch.stack([torch.from_numpy(np.array(picture)) for picture in group])
            prepared = torch.stack([self.loaded.preprocess(picture) for picture in group])
            cases[name] = pixels, self.reference.encode_image(prepared)
        return cases

    def training(self, name: str, count: int | None = None) -> Tensor:
        """The sample, or the first `count` of it, as the input of that name."""
        assert self.sample
        if name == "input_ids":
            return self._tokens(self.sample.texts[:count])
        if name == "pixel_values_videos":
            assert self.frames
            known = self.sample.clips or [[picture] for picture in self.sample.pictures[:CLIPS]]
            frames = ([frame.convert("RGB") for frame in clip] for clip in known[:count])
            clips = [prepared(self.loaded.preprocess, clip) for clip in frames]
            return filled_up(stacked(clips)[:, : self.frames], self.frames)
        pictures = [picture.convert("RGB") for picture in self.sample.pictures[:count]]
        return torch.stack([self.loaded.preprocess(picture) for picture in pictures])

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        return models.shorten(self.loaded.model, self.loaded.tokenizer(list(texts)))


def white_noise(count: int, size: tuple[int, int]) -> Tensor:
    """Always the same pixel_values [count, 3, height, width]."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def blurred(noise: Tensor) -> Tensor:
    """Pictures are smooth; blurred noise is nearer to them than noise is."""
    return F.interpolate(F.avg_pool2d(noise, 8), noise.shape[2:], mode="bilinear") * 4


def verify(folder: Path, cases: Mapping[str, Cases], batches: Sequence[int]) -> dict[str, Any]:
    """Run `verify.py` in a fresh process.

    Args:
        folder: of the files.
        cases: of every file, by its name in the folder.
        batches: sizes to run.

    Returns:
        `worst_cosine` and `max_abs_difference` of every file.

    Raises:
        GateFailed: a file does not load or does not run.
    """
    reference = folder / ".reference.safetensors"
    tensors: dict[str, Tensor] = {}
    for file, own in cases.items():
        for case, (given, output) in own.items():
            inputs = given if isinstance(given, dict) else {"": given}
            named = {f"input {n}".strip(): own for n, own in inputs.items()} | {"output": output}
            tensors |= {f"{file}|{case}|{part}": t.contiguous() for part, t in named.items()}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, reference)
    # By path and with -P: so neither this package nor the onnx.py beside verify.py is imported.
    script = Path(__file__).with_name("verify.py")
    command = [sys.executable, "-P", *map(str, (script, folder, reference, *batches))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        reference.unlink()
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        reason = last[0][:400].rstrip(".")
        raise GateFailed(
            f"onnxruntime cannot run the exported files: {reason}. No bundle was written."
        )
    results: dict[str, Any] = json.loads(done.stdout)
    for figures in results.values():
        figures["worst_cosine"] = math.floor(figures["worst_cosine"] * 1e7) / 1e7
        figures["max_abs_difference"] = float(f"{figures['max_abs_difference']:.1e}")
    return results


def check_agreement(
    file: str, precision: str, figures: Mapping[str, float], tolerances: Sequence[str] = ()
) -> None:
    """GateFailed if a file's worst cosine is below what is allowed."""
    allowed = tolerance_of(precision, tolerances).cosine
    if not figures["worst_cosine"] >= allowed:  # false for NaN, too
        raise GateFailed(
            f"{file} does not agree with PyTorch: worst cosine {figures['worst_cosine']:.7f} "
            f"(at least {allowed} wanted), largest difference "
            f"{figures['max_abs_difference']:.1e}. No bundle was written; --tolerance "
            f"{precision}.cosine=... allows more."
        )
