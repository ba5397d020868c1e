"""The texts of a suite: each encoded once, equal ones known, those that are cut short counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from radapter.data import Dataset
from radapter.data.edits import Edit
from radapter.data.pairs import templates_of
from radapter.data.settings import Templates
from radapter.data.texts import context_of, cut_texts
from radapter.evaluation import cache as caching
from radapter.evaluation.result import Evaluation, TextKey
from radapter.evaluation.scores import Task
from radapter.heads import zero_shot
from radapter.heads.head import Head
from radapter.models.queries import asked
from radapter.registry import TASKS, load
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel


class Texts:
    """Text features, each distinct text encoded once for the whole suite."""

    def __init__(
        self,
        evaluation: Evaluation,
        model: OpenModel,
        cache: caching.Cache | None,
        on_pairs: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.evaluation, self.model, self.cache = evaluation, model, cache
        self.on_pairs = on_pairs
        """Called with pairs of a picture and a text that were read together, and pairs in all"""
        self.heads: dict[tuple[str, ...], Tensor] = {}

    def head(self, dataset: Dataset, prompts: Templates) -> Head:
        """What tells a data set's classes apart: the head that was trained with the model, where it
        knows them all, else their texts."""
        trained = self.model.head.among(dataset.class_names) if self.model.head else None
        return trained or self._zero_shot(dataset, prompts)

    def _zero_shot(self, dataset: Dataset, prompts: Templates) -> Head:
        templates = templates_of(prompts)
        key = (*templates, "", *dataset.class_names)
        if key not in self.heads:
            names = dataset.class_names
            self.heads[key] = caching.get_or_compute(
                self.cache,
                self._key(names, templates),
                lambda: zero_shot.weights(self.model, zero_shot.prompts_of(names, templates)),
            )
            for name, feature in zip(names, self.heads[key], strict=True):
                self.evaluation.text_features[TextKey("class", name, tuple(templates))] = feature
        classes = {"names": dataset.class_names, "features": self.heads[key]}
        return zero_shot.head(self.model, classes)

    def features(self, dataset: Dataset, prompts: Templates) -> Tensor:
        """Of the classes of a data set, unit norm [classes, dim]; no trained head."""
        self._zero_shot(dataset, prompts)
        return self.heads[(*templates_of(prompts), "", *dataset.class_names)]

    def captions(self, texts: list[str]) -> Tensor:
        """Features of texts as they are, [texts, dim]."""
        known = self.evaluation.text_features
        keys = [TextKey("caption", text) for text in texts]
        new = [text for key, text in zip(keys, texts, strict=True) if key not in known]
        if new:
            features = caching.get_or_compute(
                self.cache, self._key(new), lambda: zero_shot.encode_texts(self.model, new)
            )
            known |= {TextKey("caption", t): f for t, f in zip(new, features, strict=True)}
        return torch.stack([known[key] for key in keys])

    def queries(self, dataset: Dataset, edits: Sequence[Edit]) -> Tensor:
        """Features of what is looked for, by the model's own query of a picture and a text: of all
        texts of the first edit, then of the second, and so on [texts, dim]. References are read
        again."""
        assert self.model.query is not None
        runtime: Any = self.model.runtime
        rows = [(e.reference, asked(self.model.query, text)) for e in edits for text in e.texts]
        found = []
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            pixels = torch.stack([self.model.preprocess(dataset.read(i)) for i, _ in some])
            features = runtime.encode_query(pixels, self.model.tokenizer([t for _, t in some]))
            keys = [TextKey("query", text, (dataset.keys[i],)) for i, text in some]
            self.evaluation.text_features |= dict(zip(keys, features, strict=True))
            found.append(features)
        return torch.cat(found)

    def remarks(self, tasks: Mapping[Task, Dataset], templates: Any) -> list[str]:
        """On texts that are longer than the model reads."""
        prompts = templates_of(templates)
        asked = [load(TASKS, task).asks(dataset, prompts) for task, dataset in tasks.items()]
        return [remark for what, texts in asked for remark in self._cut(what, texts)]

    def _cut(self, what: str, texts: Iterable[str]) -> list[str]:
        distinct = list(dict.fromkeys(texts))
        cut = cut_texts(self.model.tokenizer, distinct)
        if not cut:
            return []
        length = context_of(self.model.tokenizer)[0]
        return [
            f"{len(cut):,} of {len(distinct):,} {what} are longer than the {length} tokens that "
            f"the model reads: the rest of them is not seen, as of '{cut[0][:60]}...'"
        ]

    def by_tokens(self, captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """The captions, those with the same tokens replaced by the first of them: to the model they
        are one text, and must tie, which equal features need not do in a matrix product."""
        first: dict[bytes, str] = {}
        found: dict[str, str] = {}
        distinct = list(dict.fromkeys(text for own in captions for text in own))
        for start in range(0, len(distinct), 1024):
            some = distinct[start : start + 1024]
            for text, row in zip(some, self.model.tokenizer(some), strict=True):
                ids = row.to(torch.int64).cpu().numpy().tobytes().rstrip(b"\0")  # not the padding
                found[text] = first.setdefault(ids, text)
        return [[found[text] for text in own] for own in captions]

    def _key(self, texts: Sequence[str], templates: Sequence[str] = ()) -> caching.Key | None:
        if self.cache is None:
            return None
        runtime, tokenizer = self.model.runtime, self.model.tokenizer
        return caching.texts_key(runtime, tokenizer, texts, templates=templates)
