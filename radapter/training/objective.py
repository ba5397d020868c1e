"""The loss of a batch: contrastive, with what the recipe's objective adds to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.data import Dataset
from radapter.errors import BrokenInput, UsageError
from radapter.losses import multi_positive, retention
from radapter.methods import Attached
from radapter.models import encode_text, shorten
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


def zero_shot_model(attached: Attached, model: nn.Module) -> ZeroShot:
    """A context that gives the zero-shot model: the same weights with the adapters off, or a frozen
    copy where the weights themselves are trained. To be made before training starts."""
    if attached.switched_off is None:
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        return lambda: _always(frozen)
    switched_off = attached.switched_off

    @contextmanager
    def same_weights() -> Iterator[nn.Module]:
        modes = {module: module.training for module in model.modules()}
        model.eval()  # no dropout of any kind in what is compared with
        try:
            with switched_off():
                yield model
        finally:
            for module, mode in modes.items():
                module.training = mode

    return same_weights


@contextmanager
def _always(model: nn.Module) -> Iterator[nn.Module]:
    yield model


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
    alone = torch.eye(len(groups), dtype=torch.bool)
    if settings.positives == "pair":
        return alone
    of_group = groups[:, None] == groups[None, :]
    same_text = text_of[:, None] == text_of[None, :]
    return torch.where(own[None, :], same_text, of_group) | alone


def loss(
    model: nn.Module,
    batch: dict[str, Any],
    settings: Objective,
    *,
    device: torch.device,
    low_precision: bool = False,
    retained: Retention | None = None,
) -> Tensor:
    """The loss of one batch, a scalar in fp32.

    Args:
        model: the model as it is trained.
        batch: what `radapter.data.pairs.Collate` makes.
        settings: the recipe's objective.
        device: where the model is.
        low_precision: encode in bfloat16.
        retained: what similarities are held to, if the objective asks for it.
    """
    pool = retained.draw() if retained else batch["tokens"][:0]
    tokens = shorten(model, torch.cat([batch["tokens"], pool])).to(device)
    pictures = batch["images"].to(device)

    def encode(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
            images = model.encode_image(pictures)  # type: ignore[operator]
            texts = encode_text(model, tokens)
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)

    # Equal texts of a batch are encoded once.
    images, texts = encode(model, tokens)
    logit_scale = model.logit_scale.exp()  # type: ignore[operator]
    total = multi_positive(
        images,
        texts[batch["text_of"].to(device)],
        positives(batch, settings).to(device),
        logit_scale=logit_scale,
        smoothing=settings.smoothing,
        margin=settings.margin,
    )
    if retained is None:
        return total
    with torch.no_grad(), retained.zero_shot() as before:
        then_images, then_texts = encode(before, tokens[-len(pool) :])
    kept = retention(
        images, texts[-len(pool) :], then_images, then_texts, logit_scale=logit_scale.detach()
    )
    return total + retained.settings.weight * kept
