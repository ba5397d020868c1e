"""A run as a mixture of its zero-shot and its tuned model per sample: DaWin and VRF.

What weighs the two is fitted on the recipe's held-out data, which is of the training distribution;
no suite is read.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radapter.classes import distinct
from radapter.data import Dataset
from radapter.data.dataset import check_broken
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.cache import Cache
from radapter.evaluation.encoding import encode_set
from radapter.evaluation.suite import held_out_suite
from radapter.heads import zero_shot
from radapter.heads.gate import Answers, some_rows
from radapter.heads.head import Head
from radapter.heads.linear import Linear
from radapter.merging import Trained, write_mixture
from radapter.models import LoadedModel, together
from radapter.registry import GATES, load
from radapter.run import Run
from radapter.runtimes import BATCH
from radapter.runtimes.opened import from_loaded

Progress = Callable[[int, int], None]


def merge_by_gate(
    run: Run,
    trained: Trained,
    rule: str,
    *,
    alpha: float = 1.0,
    transductive: bool = False,
    device: str = "cpu",
    cache: Cache | None = None,
    on_progress: Progress = lambda done, total: None,
    **settings: Any,
) -> tuple[Path, bool]:
    """Write `merged/RULE/` and make it the run's present model: the zero-shot model, the tuned one,
    those merged between them if the rule asks for any, and the gate that mixes their answers.

    Args:
        run: locked, as it is written into.
        trained: what it has learned.
        rule: a name of `registry.GATES`.
        alpha: which model is the tuned one.
        transductive: of `dawin` with clusters: these wait for a test set, whose pictures they are
            fitted on, without labels; see `transductive.evaluate`.
        device: `cpu`, `cuda`, or `auto`.
        cache: of features; None: none.
        on_progress: called with held-out pictures done and pictures in all.
        settings: of the rule's `fit`.

    Returns:
        The folder, and whether it was written (False: it was there already, whole).

    Raises:
        UsageError: the method does not fold, there are no classes, no held-out data, or the head
            is not linear.
    """
    module = load(GATES, rule)
    answering = Pair(run, trained, alpha, device)
    answers = answering.held_out(cache, on_progress)
    data = run.recipe().validation_data()
    assert data is not None
    name = rule_name(rule, settings)
    waiting = {"transductive": settings.pop("clusters")} if transductive else {}
    fitted = module.fit(answers, **settings)
    mixture = answering.mixture(rule, fitted, settings)
    about = {
        "alpha": alpha,
        "rule": f"{name}, sees unlabelled test data" if waiting else name,
        **waiting,
        "mixture": {
            "models": len(mixture.model.members),  # type: ignore[arg-type]
            "fitted_on": f"{len(answers.labels)} held-out pictures of {data.in_words()}",
            **module.settings(fitted),
        },
    }
    name += ("-transductive" if waiting else "") + (f"-of-alpha-{alpha:g}" if alpha != 1 else "")
    return write_mixture(run, trained, mixture, name, about)


def rule_name(rule: str, settings: Mapping[str, Any]) -> str:
    """What tables call it: `dawin`, `dawin-clusters-3`, `vrf`, `vrf-euclidean`."""
    if settings.get("clusters"):
        return f"{rule}-clusters-{settings['clusters']}"
    return f"{rule}-euclidean" if settings.get("distance") == "euclidean" else rule


class Pair:
    """The zero-shot and the tuned model of a run, each with its classifier.

    Args:
        run: of classes.
        trained: what it has learned.
        alpha: of the tuned model.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        UsageError: the method does not fold, there are no classes, or the head is not linear.
    """

    def __init__(self, run: Run, trained: Trained, alpha: float, device: str) -> None:
        classes, held_out = run.classes(), run.recipe().validation_data()
        if classes is None or (held_out is not None and held_out.task != "classification"):
            raise UsageError(
                f"A mixture weighs answers among classes, and {run.name} has none in its training "
                "or held-out data: merge it by alpha."
            )
        head = trained.facts.get("head")
        if head is not None and head["name"] != "linear":
            raise UsageError(
                f"A mixture weighs linear classifiers or texts, and {run.name} has the head "
                f"{head['name']}: merge it by alpha."
            )
        self.recipe, self.trained, self.alpha, self.device = run.recipe(), trained, alpha, device
        self.classes = distinct(classes)
        self.models: list[LoadedModel] = []
        self.heads: list[Linear] = []
        for at in (0.0, alpha):
            self._add(at)

    def _add(self, alpha: float) -> None:
        base = self.trained.base
        model = copy.deepcopy(base.model)
        model.load_state_dict(self.trained.at(alpha))
        loaded = dataclasses.replace(base, model=model.eval().requires_grad_(False), head=None)
        self.models.append(loaded)
        own = self.trained.head_at(alpha)
        if own is None:
            weights = zero_shot.weights(from_loaded(loaded, device=self.device), self.classes)
            self.heads.append(Linear(weights, torch.tensor(loaded.logit_scale)))
            return
        rows = own.rows(self.classes["names"])
        assert rows is not None
        self.heads.append(some_rows(own.module, rows))

    def rows(self, dataset: Dataset) -> list[int] | None:
        """The place of each of its classes among the run's; None if one was not trained."""
        return Head(self.classes["names"], nn.Identity()).rows(dataset.class_names)

    def held_out(
        self, cache: Cache | None = None, on_progress: Progress = lambda done, total: None
    ) -> Answers:
        """What both say of the recipe's held-out pictures.

        Raises:
            UsageError: there are none.
        """
        suite = held_out_suite(self.recipe, self.trained.classes)
        (dataset,) = suite.open()["held-out"].values()
        limit = suite.datasets[0].data.broken_images
        return self.on(dataset, limit, cache, on_progress)

    def on(
        self,
        dataset: Dataset,
        broken_images: int,
        cache: Cache | None = None,
        on_progress: Progress = lambda done, total: None,
    ) -> Answers:
        """What both say of a data set's pictures, among its classes, of one name the first."""
        models = [from_loaded(model, device=self.device) for model in self.models[:2]]
        done, seen = 0, dict[str, str]()

        def on_batch(read: int, failed: dict[str, str]) -> None:
            nonlocal done
            seen.update(failed)
            check_broken(list(seen.values()), broken_images, "data.broken_images")
            done += read + len(failed)
            on_progress(done, len(dataset))

        features, broken = encode_set(
            [model.runtime for model in models],
            models[0].preprocess,
            models[0].preprocessing,
            [(key, dataset, place) for place, key in enumerate(dataset.keys)],
            batch_size=BATCH,
            cache=cache,
            on_batch=on_batch,
        )
        if not len(features[0]):
            raise BrokenInput(f"{dataset.source}: no picture can be read.")
        rows = self.rows(dataset)
        if rows is None:
            raise UsageError(f"{dataset.source} has a class that was not trained.")
        among = list(dict.fromkeys(rows))
        kept = [
            label
            for key, label in zip(dataset.keys, dataset.labels, strict=True)
            if key not in broken
        ]
        zero, tuned = features
        with torch.no_grad():
            logits = self.heads[0](zero)[:, among], self.heads[1](tuned)[:, among]
        labels = torch.tensor([among.index(rows[label]) for label in kept])
        return Answers((zero, tuned), logits, labels)

    def mixture(self, rule: str, fitted: Any, settings: Mapping[str, Any]) -> LoadedModel:
        """Both models, and one merged at each centre that was fitted, with the gate over them."""
        del self.models[2:], self.heads[2:]
        for centre in getattr(fitted, "centres", ()):
            self._add(centre * self.alpha)
        facts = {
            "name": rule,
            **settings,
            "alpha": self.alpha,
            "classes": list(self.classes["names"]),
        }
        gate = fitted.gate(self.heads).eval().requires_grad_(False)
        mixture = together(self.models, self.trained.base.name)
        return dataclasses.replace(mixture, head=Head(facts["classes"], gate, facts))
