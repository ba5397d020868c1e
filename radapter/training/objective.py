"""The loss of a batch: contrastive, with what the recipe's objective adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.data import Dataset
from radapter.errors import BrokenInput, UsageError
from radapter.losses import multi_positive, retention
from radapter.models import encode_text
from radapter.recipe import Objective, Retain

ZeroShot = Callable[[], AbstractContextManager[nn.Module]]


@dataclass(frozen=True)
class Retention:
    """What `objective.retain` compares with."""

    settings: Retain
    captions: list[str]
    tokenize: Callable[[list[str]], Tensor]
    zero_shot: ZeroShot

    def draw(self) -> Tensor:
        """Token ids [pool, length] of captions at random."""
        chosen = torch.randperm(len(self.captions))[: self.settings.pool]
        return self.tokenize([self.captions[i] for i in chosen])


def retained_captions(settings: Retain, dataset: Dataset) -> list[str]:
    """The captions that retention compares with, each once.

    Raises:
        BrokenInput: the file is missing, no UTF-8 text, or holds fewer than two captions.
        UsageError: no file is named and the data has no captions.
    """
    if settings.captions is None:
        captions = [text for texts in dataset.captions for text in texts]
        if not captions:
            raise UsageError(
                f"objective.retain needs captions and {dataset.source} has none: "
                "name a text file with a caption in each line in objective.retain.captions."
            )
    else:
        path = Path(settings.captions).expanduser()
        try:
            captions = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            raise BrokenInput(f"No such file: {path} (objective.retain.captions).") from None
        except UnicodeDecodeError:
            raise BrokenInput(f"{path} is no UTF-8 text (objective.retain.captions).") from None
    captions = list(dict.fromkeys(filter(None, captions)))
    if len(captions) < 2:
        raise BrokenInput("objective.retain needs at least two captions.")
    return captions


def positives(batch: dict[str, Any], settings: Objective) -> Tensor:
    """bool [batch, batch]: whether text j is right for picture i.

    All pairs of one group are positives, but a picture's own caption among class prompts
    (`batch["own"]`) is right only for that picture, and for those that drew the same caption.
    """
    groups, own, text_of = batch["groups"], batch["own"], batch["text_of"]
    alone = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    if settings.positives == "pair":
        return alone
    of_group = groups[:, None] == groups[None, :]
    same_text = text_of[:, None] == text_of[None, :]
    return torch.where(own[None, :], same_text, of_group) | alone


def encode_pictures(model: nn.Module, pictures: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [batch, dim], unit norm, fp32, of pictures [batch, 3, height, width].

    The towers compute in `precision`, if there is one; the normalisation does not.
    """
    with _autocast(pictures.device, precision):
        features = model.encode_image(pictures)  # type: ignore[operator]
    return F.normalize(features.float(), dim=-1)


def encode_tokens(model: nn.Module, tokens: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [texts, dim], unit norm, fp32, of token ids [texts, length]."""
    with _autocast(tokens.device, precision):
        features = encode_text(model, tokens)
    return F.normalize(features.float(), dim=-1)


def _autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, precision, enabled=precision is not None)


def loss_of_features(
    images: Tensor,
    texts: Tensor,
    batch: dict[str, Any],
    settings: Objective,
    *,
    logit_scale: Tensor,
    before: Sequence[Tensor] | None = None,
) -> Tensor:
    """The loss of one batch, a scalar in fp32.

    Args:
        images: features of the batch's pictures, [batch, dim].
        texts: features of its distinct texts, and under them those of the retained captions.
        batch: what `radapter.data.pairs.Collate` makes, on the features' device.
        settings: the recipe's objective.
        logit_scale: exponentiated.
        before: the zero-shot model's features of the pictures and of the retained captions, if the
            objective retains.
    """
    total = multi_positive(
        images,
        texts[batch["text_of"]],
        positives(batch, settings),
        logit_scale=logit_scale,
        smoothing=settings.smoothing,
        margin=settings.margin,
    )
    if before is None or settings.retain is None:
        return total
    pool = texts[-len(before[1]) :]
    kept = retention(images, pool, before[0], before[1], logit_scale=logit_scale.detach())
    return total + settings.retain.weight * kept
