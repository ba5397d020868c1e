"""Texts and clips compared by their parts: tokens with frames (Mug), and frames weighted by
auxiliary captions.

Mug (Liu et al. 2023) has no parameters. With the cosines S of a text's tokens t and a clip's frames
v, and softmax of tau S:

    r_t = sum_v softmax_v(tau S)_tv S_tv     c_v = sum_t softmax_t(tau S)_tv S_tv
    a = softmax_t(tau r)                     b = softmax_v(tau c)
    similarities: (a . r + b . c) / 2        features: a^T S b

`similarities` is the default of the released code (`mug_frame_token_simple`); `features` its other
form (`mug_frame_token`), in which `(sum_t a_t text_t) . (sum_v b_v frame_v)` is a^T S b.

Auxiliary captions are M2-RAAP's (Dong et al. 2024), of which no formula is published. Our reading:
of a clip with unit-norm frames v_t and auxiliary captions c_k

    w_kt = softmax_t(tau v_t . c_k)          v = (mean_k sum_t w_kt v_t + mean_t v_t) / 2

of unit norm takes the place of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter.data import Dataset
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import cache as caching
from radapter.evaluation.encoding import Together, encode_batches
from radapter.evaluation.retrieval import SIMILARITIES
from radapter.evaluation.suite_dataset import Match
from radapter.evaluation.texts import Texts
from radapter.models.frames import which_frames
from radapter.runtimes import BATCH


@dataclass(frozen=True)
class _EachFrame(Together):
    """Of a clip the features of its frames, one behind the other, NaN for those that it lacks."""

    most: int

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> [n, most * dim], each frame of unit norm."""
        (runtime,) = self.runtimes
        there = which_frames(pixel_values)
        found = runtime.encode_frames(pixel_values).masked_fill(~there[:, :, None], torch.nan)
        return F.pad(found, (0, 0, 0, self.most - there.shape[1]), value=torch.nan).flatten(1)


def frames_of(dataset: Dataset, texts: Texts) -> tuple[Tensor, Tensor]:
    """Unit-norm features of every frame [clips, frames, dim], 0 where a clip has none; and which
    are there [clips, frames], bool. They are kept in the cache that texts have.

    Raises:
        UsageError: the runtime gives no features of single frames.
    """
    model, most = texts.model, dataset.frames or 1
    size = max(1, BATCH // most)
    named = [(name, dataset, i) for i, name in enumerate(dataset.keys)]
    key = None
    if texts.cache is not None:
        (key,) = caching.pictures_keys([model.runtime], model.preprocessing, named, size)
        key = key and {**key, "kind": "frames of clips"}

    def compute() -> Tensor:
        several = _EachFrame([model.runtime], most)
        places = range(len(dataset))
        found = []
        for batch in encode_batches(
            several, model.preprocess, dataset.read, places, batch_size=size
        ):
            if batch.failed:
                raise BrokenInput(next(iter(batch.failed.values())))
            found.append(batch.features)
        return torch.cat(found)

    frames = caching.get_or_compute(texts.cache, key, compute).unflatten(1, (most, -1))
    return frames.nan_to_num(0.0), ~frames[:, :, 0].isnan()


def mug(
    dataset: Dataset, captions: Sequence[str], texts: Texts, match: Match
) -> tuple[Tensor, str]:
    """The similarity of every caption to every clip, [captions, clips]; and what it took, beside a
    cosine of whole texts and clips, in a sentence.

    Raises:
        UsageError: the runtime gives no features of single tokens, or of frames.
    """
    runtime: Any = texts.model.runtime
    if not hasattr(runtime, "encode_tokens"):
        raise UsageError(
            f"{runtime.name} has no features of tokens, since an exported text tower gives one "
            "feature a text: score `match: {by: mug}` with --runtime torch."
        )
    frames, there = frames_of(dataset, texts)
    found, number = torch.empty(len(captions), len(frames)), 0
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    for start in range(0, len(order), BATCH):
        own = order[start : start + BATCH]
        tokens, read = runtime.encode_tokens(texts.model.tokenizer([captions[i] for i in own]))
        number += int(read.sum())
        some = max(1, SIMILARITIES // (read.numel() * frames.shape[1]))
        rows = torch.tensor(own)
        for first in range(0, len(frames), some):
            clips = slice(first, first + some)
            cosines = torch.einsum("atd,bvd->abtv", tokens, frames[clips])
            found[rows, clips] = pooled(cosines, read, there[clips], match)
    pairs, whole = number * int(there.sum()), len(captions) * len(frames)
    return found, (
        f"Mug took {pairs:,} cosines of tokens and frames, and two softmaxes of each; whole texts "
        f"and clips take {whole:,} cosines"
    )


def pooled(cosines: Tensor, read: Tensor, there: Tensor, match: Match) -> Tensor:
    """Mug of texts and clips, [texts, clips].

    Args:
        cosines: of tokens and frames, [texts, clips, tokens, frames].
        read: which tokens a text has, bool [texts, tokens], one at least.
        there: which frames a clip has, bool [clips, frames], one at least.
    """

    def shares(of: Tensor, among: Tensor, dim: int) -> Tensor:
        return (match.temperature * of).masked_fill(~among, -torch.inf).softmax(dim)

    tokens, frames = read[:, None, :, None], there[None, :, None, :]
    of_tokens = (shares(cosines, frames, -1) * cosines).sum(dim=-1)
    of_frames = (shares(cosines, tokens, -2) * cosines).sum(dim=-2)
    a = shares(of_tokens, tokens[..., 0], -1)
    b = shares(of_frames, frames[:, :, 0], -1)
    if match.pool == "features":
        return torch.einsum("abt,abtv,abv->ab", a, cosines, b)
    return ((a * of_tokens).sum(dim=-1) + (b * of_frames).sum(dim=-1)) / 2


def weighted(dataset: Dataset, texts: Texts, match: Match) -> Tensor:
    """Features of clips [clips, dim], unit norm, frames weighted by auxiliary captions.

    Raises:
        UsageError: the runtime gives no features of single frames.
    """
    frames, there = frames_of(dataset, texts)
    distinct = list(dict.fromkeys(text for own in dataset.auxiliary for text in own))
    row = {text: place for place, text in enumerate(distinct)}
    encoded = texts.captions(distinct)
    found = []
    for own, clip, real in zip(dataset.auxiliary, frames, there, strict=True):
        frame = clip[real]
        mean = frame.mean(dim=0)
        if own:
            cosines = encoded[[row[text] for text in own]] @ frame.T
            mean = ((match.temperature * cosines).softmax(dim=-1) @ frame).mean(
                dim=0
            ) / 2 + mean / 2
        found.append(mean)
    return F.normalize(torch.stack(found), dim=-1)
