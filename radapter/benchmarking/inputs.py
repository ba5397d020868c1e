"""What is measured with: the same for every runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from radapter import models
from radapter.benchmarking.subjects import Subject
from radapter.errors import UsageError
from radapter.export.cases import LONG, TEXTS, blurred, white_noise
from radapter.models.queries import asked, template_of
from radapter.runtimes.opened import BundleTokenizer


class Batches:
    """Batches of any batch size.

    Args:
        manifest: of its bundle, if that is all there is.
        text_length: tokens of a text. None: the model's context length.

    Raises:
        UsageError: the model does not take texts of that length.
    """

    def __init__(
        self, subject: Subject, manifest: Mapping[str, Any], text_length: int | None
    ) -> None:
        self._tokenize: Callable[[list[str]], Tensor]
        if subject.loaded is not None:
            model: Any = subject.loaded.model
            self.image_size = models.image_size(model)
            context = subject.loaded.context_length
            dynamic = models.text.takes_short_texts(model)
            self._tokenize = subject.loaded.tokenizer
            self._template = template_of(model)
        else:
            height, width = manifest["image_size"]
            self.image_size = (height, width)
            context = int(manifest["context_length"])
            dynamic = manifest["text_length"] == "dynamic"
            self._tokenize = BundleTokenizer(subject.bundle(), manifest)
            self._template = manifest.get("query", {}).get("template")
        self.text_length = context if text_length is None else text_length
        if not 2 <= self.text_length <= context or (self.text_length < context and not dynamic):
            allowed = f"2 to {context} tokens" if dynamic else f"{context} tokens only"
            raise UsageError(f"{subject.name} takes texts of {allowed}, not {self.text_length}.")

    def pictures(self, count: int) -> Tensor:
        """pixel_values [count, 3, height, width]."""
        return blurred(white_noise(count, self.image_size))

    def clips(self, count: int, frames: int) -> Tensor:
        """pixel_values_videos [count, frames, 3, height, width], no frame of them padding."""
        return self.pictures(count * frames).unflatten(0, (count, frames))

    def tokens(self, count: int) -> Tensor:
        """Token ids [count, text length]: texts cut to it, each with its end token."""
        return self._cut([f"{TEXTS[i % len(TEXTS)]} {i}, {LONG}" for i in range(count)])

    def queries(self, count: int) -> Tensor:
        """Likewise, in the template of a model that makes queries of pictures and texts."""
        assert self._template
        texts = [f"{TEXTS[i % len(TEXTS)]} {i}, {LONG}" for i in range(count)]
        return self._cut([asked(self._template, text) for text in texts])

    def _cut(self, texts: list[str]) -> Tensor:
        ids = self._tokenize(texts)
        return torch.cat([ids[:, : self.text_length - 1], ids[:, -1:]], dim=1)
