"""Composed retrieval: pictures by a reference picture and what is to be changed of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.data.edits import MEASURES, Edit
from radapter.errors import BrokenInput
from radapter.evaluation.scores import Metric, Scored, Scores
from radapter.evaluation.shown import Firsts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite
    from radapter.evaluation.suite_dataset import SuiteDataset
    from radapter.evaluation.texts import Texts

WAYS = {
    "composed": "picture and text",
    "query": "picture as a word",
    "picture_alone": "picture alone",
    "text_alone": "text alone",
    "described": "caption of the target",
}
"""What queries are made of. The second needs a model with an inversion network; the last is no
answer to the task but what knowing it is worth"""
HEADLINES = ("r1", "r10", "kinds_r1", "subset_r1", "map_5")
METRICS = {
    f"{way}_{name}": Metric(f"{title}, {measure.title}", headline=name in HEADLINES)
    for name, measure in MEASURES.items()
    for way, title in WAYS.items()
}
DATA = "edits"
EQUAL = 0.5
"""The weight of the text where none is chosen, as in the baselines of papers"""
OF_SERVER = {False: 50, True: 3}
"""How many pictures go to a server, of the gallery and of the subset"""


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """Its pictures and edits, with those that the weight of the text is chosen on."""
    from radapter.data import open_data
    from radapter.data.composed import with_choosing

    if not dataset.edits:
        raise BrokenInput(f"{dataset.source} has no edits.")
    if described.weight_on is None:
        return dataset
    return with_choosing(dataset, open_data(described.weight_on))


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads: what is to be changed."""
    return "edits", itertools.chain(*(edit.texts for edit in dataset.edits))


def protocol(suite: Suite) -> dict[str, Any]:
    """What a query is, how it is ranked, and how ties are counted."""
    return {
        "composed": "picture and text: their sum, weighted and normalised; picture as a word: by "
        "the model's inversion network; by cosine, exact over the whole gallery; a tie counts as a "
        "miss; mAP@k divides by min(k, right pictures)"
    }


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """What the data set's benchmark reports, of every way to make a query; where only a server
    knows the right pictures, the files for it."""
    from radapter.evaluation import composed

    choosing = [edit for edit in dataset.edits if edit.chooses]
    weight, said = EQUAL, "the same as of the picture"
    if choosing:
        weight, _ = composed.best_weight(choosing, *_asked(choosing, features, texts), features)
        said = f"chosen on {len(choosing):,} other edits"
    edits = [edit for edit in dataset.edits if not edit.chooses]
    pictures, changes = _asked(edits, features, texts)
    ways = {
        "composed": composed.summed_query(pictures, changes, weight),
        "picture_alone": pictures,
        "text_alone": changes,
    }
    if texts.model.query is not None:
        ways["query"] = composed.mean_of_wordings(edits, texts.queries(dataset, edits))
    found = Scores(
        {},
        facts={"edits": len(edits), "gallery": max(len(composed.among(e)) for e in edits)},
        remarks=[f"the weight of the text is {weight:g}, {said}"],
        further={"weight_of_text": weight},
    )
    if not all(edit.targets for edit in edits):
        own_way = ways.get("query", ways["composed"])
        found.files = _for_server(dataset, edits, own_way, features, described)
        return found
    if dataset.captions:
        ways["described"] = texts.captions([dataset.captions[e.targets[0]][0] for e in edits])
    own = clusters[[edit.reference for edit in edits]]
    scored = {
        way: composed.values(edits, queries, features, dataset.measured)
        for way, queries in ways.items()
    }
    for name in (name for name in MEASURES if name in dataset.measured):
        chance = composed.chance(edits, MEASURES[name])
        for way, values in scored.items():
            found.metrics[f"{way}_{name}"] = Scored(values[name], own, chance)
    way = "query" if "query" in ways else "composed"
    found.shown = Firsts(
        [edit.reference for edit in edits],
        [edit.texts[0] for edit in edits],
        *composed.firsts(edits, ways[way], features),
        way=WAYS[way],
    )
    return found


def _asked(edits: Sequence[Edit], features: Tensor, texts: Texts) -> tuple[Tensor, Tensor]:
    """Features of references and of what is to be changed, [edits, dim] each."""
    from radapter.evaluation import composed

    changes = texts.captions(list(itertools.chain(*(edit.texts for edit in edits))))
    return features[[e.reference for e in edits]], composed.mean_of_wordings(edits, changes)


def _for_server(
    dataset: Dataset,
    edits: Sequence[Edit],
    queries: Tensor,
    features: Tensor,
    described: SuiteDataset,
) -> dict[str, Any]:
    from radapter.evaluation import composed

    lists: dict[bool, dict[str, list[str]]] = {False: {}, True: {}}
    for edit, similarity in composed.similarities(edits, queries, features):
        for subset, k in OF_SERVER.items():
            if edit.subset or not subset:
                places = composed.first(edit, similarity, k, subset)
                lists[subset][edit.name] = [dataset.keys[i] for i in places]
    return described.data.for_server(lists[False], lists[True])
