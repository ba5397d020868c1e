"""FD-Align: pictures keep their similarities to prototypes of what is not their class."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError, not_installed
from radapter.objectives import contexts
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Count, Rows

TEMPLATES = [f"a {kind} of a {{}}." for kind in ("photo", "sketch", "toy", "blurry photo", "sign")]
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"templates": TEMPLATES},
    {"templates": TEMPLATES, "keep": 4, "clusters": 3, "mean": "elements", "weight": 20.0},
)


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    templates: list[str] | Literal["openai"] = "openai",
    keep: Count | None = None,
    clusters: Count | None = None,
    mean: Literal["pictures", "elements"] = "pictures",
    rows: Rows = "labelled",
) -> Term:
    """KL(softmax(k v0 P^T) || softmax(k v P^T)) of a picture's features v (Song et al., NeurIPS
    2023). A prototype is the mean over all classes of a template's unit features of the zero-shot
    model, with unit norm, and stays as it is.

    Args:
        context: tokenizer, training data and what is trained.
        weight: what the term is multiplied by in the loss.
        templates: prompts with `{}` for the class, one for each prototype; `openai`: open_clip's
            list of 80.
        keep: leave out prototypes that are far from the others, by an isolation forest, and keep so
            many; 60 in the released code. `null`: all.
        clusters: replace what is left by the centres of so many k-means clusters, as the released
            code does. `null`: no clusters.
        mean: what the divergence is averaged over: `pictures`, or `elements`, pictures and
            prototypes, as the released code does.
        rows: which pictures it is of; `unlabelled` and `all` need the section `unlabelled`.

    Raises:
        UsageError: fewer prototypes are left than the settings ask for, or fewer than two.
        MissingDependency: `keep` and `clusters` need scikit-learn.
    """
    context.needs_trained("fd-align", "image")
    fixed = contexts.class_means(context, templates)
    for key, wanted in (("keep", keep), ("clusters", clusters)):
        if wanted is None:
            continue
        if not 2 <= wanted <= len(fixed):
            raise UsageError(
                f"{context.place}.{key} is {wanted}: it has to be at least 2, and at most the "
                f"{len(fixed)} prototypes that there are."
            )
        fixed = (_without_outliers if key == "keep" else _centres)(fixed, wanted, context.place)

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        scaled = teacher.logit_scale * fixed.T
        return contexts.divergence(features.images @ scaled, teacher.images @ scaled, mean=mean)

    return Term(
        loss, teacher="zero-shot", reads_texts=False, weight=weight, rows=context.rows(rows)
    )


def _without_outliers(prototypes: Tensor, keep: int, place: str) -> Tensor:
    """The `keep` that an isolation forest finds the least alone, in their order."""
    try:
        from sklearn.ensemble import IsolationForest
    except ImportError:
        raise not_installed(f"{place}.keep", "scikit-learn", "clusters") from None
    rows = prototypes.cpu().numpy()
    scores = IsolationForest(random_state=0).fit(rows).decision_function(rows)
    best = torch.as_tensor(scores).argsort(descending=True, stable=True)[:keep]
    return prototypes[best.sort().values.to(prototypes.device)]


def _centres(prototypes: Tensor, clusters: int, place: str) -> Tensor:
    """Centres [clusters, dim], of less than unit norm, as the released code has them."""
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise not_installed(f"{place}.clusters", "scikit-learn", "clusters") from None
    found = KMeans(n_clusters=clusters, random_state=0).fit(prototypes.cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(prototypes)
