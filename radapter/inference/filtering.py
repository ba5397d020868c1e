"""Pairs of pictures or clips and their captions, filtered: what is kept, as a list that recipes
read, and what was dropped, with the reason.

Pictures are scored in parts of `PART`; the features of each go into the cache of features when it
is done, so that a command that was stopped goes on, and other limits read no picture again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radapter.data import Dataset, open_data
from radapter.data.copies import MOST, alike
from radapter.data.left_out import FIRST
from radapter.data.pair_rules import Rule, like, measured, reasons
from radapter.data.settings import Data
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import cache as caching
from radapter.evaluation.encoding import encode_set
from radapter.files import write_atomic
from radapter.heads.zero_shot import encode_texts
from radapter.names import to_bytes
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel

PART = 1024
"""Pictures whose features are one entry of the cache: the most that a kill can lose"""
KEPT, DROPPED, REPORT = "kept.jsonl", "dropped.jsonl", "report.json"
BROKEN, COPY = "broken", "copy"
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of pairs below the scores that a report names"""


@dataclass(frozen=True)
class Pairs:
    """Every pair of a list, judged."""

    settings: Data
    dataset: Dataset
    captions: list[list[str]]
    """Of each picture: its own, or those that were rewritten"""
    measures: dict[str, np.ndarray]
    """[pairs] each; the score of what cannot be read is no number"""
    reasons: list[str | None]
    """Why a pair is dropped; None: it is kept"""
    facts: dict[str, Any]
    """The report"""
    broken: list[str]
    """Messages about what cannot be read"""


def judged(
    settings: Data,
    model: OpenModel,
    rules: Sequence[Rule],
    *,
    rewritten: Path | None = None,
    sample: int = 10_000,
    only_sample: bool = False,
    cache: caching.Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pairs:
    """Score all pairs of a data section and say which ones rules drop, and which are copies.

    What is held out by `hold_out` is filtered too: the kept list takes the place of the whole list.

    Args:
        rules: by which pairs are dropped, beside what cannot be read, and copies.
        rewritten: a table with the columns of the list, whose captions take the place of a
            picture's own.
        sample: how many pictures limits are taken from, by a hash of their names.
        only_sample: judge the sample alone.

    Raises:
        UsageError: the section reads no list, or has no captions.
        BrokenInput: a file is missing or damaged; no pair is kept.
    """
    settings.listing()  # or there is none
    if settings.task != "captions":
        raise UsageError(
            "Captions are filtered, and the recipe has classes: set data.task=captions."
        )
    dataset = open_data(settings.scored() or settings)
    first = sorted(range(len(dataset)), key=lambda i: _hash(dataset.keys[i]))[:sample]
    if only_sample:
        dataset, first = dataset.select(sorted(first)), list(range(len(first)))
    captions, said = _captions(settings, dataset, rewritten)
    scores, broken = _scores(model, dataset, captions, cache, on_progress)
    measures = measured(captions) | {"score": scores}
    pictures = np.repeat(np.arange(len(dataset)), [len(own) for own in captions])
    sampled = np.isin(pictures, first) & ~np.isnan(scores)
    if not sampled.any():
        raise BrokenInput(f"{dataset.source}: no picture of the sample can be read.")
    limits = [rule.limit(measures[rule.measure][sampled]) for rule in rules]
    found = reasons(rules, limits, measures)
    for place in np.flatnonzero(np.isnan(scores)):
        found[int(place)] = BROKEN
    for number in _copies(dataset, captions):
        found[number] = found[number] or COPY
    if all(found):
        raise BrokenInput(
            f"No pair of {dataset.source} is kept: {_counts(found)}. Drop less with --drop."
        )
    facts = {
        "model": model.name,
        "weights_hash": model.weights_hash,
        "source": dataset.source,
        "sample": len(first),
        "only_sample": only_sample,
        "limits": {rule.text: limit for rule, limit in zip(rules, limits, strict=True)},
        "pictures": {
            "all": len(dataset),
            "kept": len({int(p) for p, why in zip(pictures, found, strict=True) if not why}),
        },
        "pairs": {"all": len(found), "kept": found.count(None)},
        "dropped": _dropped(dataset, pictures, found),
        "scores": _quantiles(scores),
        "scores_kept": _quantiles(scores[[why is None for why in found]]),
        **said,
    }
    if len(dataset) > MOST:
        facts["copies_not_looked_for"] = f"as there are more than {MOST:,} pictures"
    return Pairs(settings, dataset, captions, measures, found, facts, list(broken.values()))


def written(pairs: Pairs, out: Path) -> dict[str, Any]:
    """Write the lists and the report into a folder.

    Returns:
        The report, with `changes`: what of the recipe's data section reads the kept list.
    """
    listing = pairs.settings.listing()
    row_of = listing.rows(pairs.dataset)
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    places = ((i, text) for i, own in enumerate(pairs.captions) for text in own)
    scores = pairs.measures["score"]
    for number, ((picture, text), why) in enumerate(zip(places, pairs.reasons, strict=True)):
        row = row_of(picture, text)
        if not np.isnan(scores[number]):
            row["score"] = round(float(scores[number]), 6)
        (kept if why is None else dropped).append(row if why is None else row | {"reason": why})
    old, new = pairs.settings.model_dump(), listing.at(str((out / KEPT).absolute())).model_dump()
    changes = {f"data.{key}": value for key, value in new.items() if old[key] != value}
    facts = pairs.facts | {"changes": changes}
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in ((DROPPED, dropped), (KEPT, kept)):
        write_atomic(out / name, "".join(f"{json.dumps(row)}\n" for row in rows))
    write_atomic(out / REPORT, json.dumps(facts, indent=1) + "\n")
    return facts


def _captions(
    settings: Data, dataset: Dataset, rewritten: Path | None
) -> tuple[list[list[str]], dict[str, Any]]:
    """The captions of each picture, and what of them was rewritten."""
    if rewritten is None:
        return dataset.captions, {}
    path = rewritten.absolute()
    if not path.is_file():
        raise BrokenInput(f"No such file: {rewritten}. Correct --captions.")
    texts = settings.listing().captions(path)
    captions = [
        texts.get(key, own) for key, own in zip(dataset.keys, dataset.captions, strict=True)
    ]
    known = set(dataset.keys)
    unknown = [key for key in texts if key not in known]
    return captions, {
        "rewritten": {
            "file": str(rewritten),
            "pictures": sum(key in texts for key in dataset.keys),
            "unknown": {"count": len(unknown), "first": unknown[:FIRST]},
        }
    }


def _scores(
    model: OpenModel,
    dataset: Dataset,
    captions: Sequence[Sequence[str]],
    cache: caching.Cache | None,
    on_progress: Callable[[int, int], None],
) -> tuple[np.ndarray, dict[str, str]]:
    """The cosine of every pair, and by name why pictures cannot be read."""
    scores: list[np.ndarray] = []
    broken: dict[str, str] = {}
    for start in range(0, len(dataset), PART):
        places = range(start, min(start + PART, len(dataset)))
        (features,), failed = encode_set(
            [model.runtime],
            model.preprocess,
            model.preprocessing,
            [(dataset.keys[i], dataset, i) for i in places],
            batch_size=BATCH,
            cache=cache,
        )
        broken |= failed
        distinct = sorted({text for i in places for text in captions[i]})
        key = caching.texts_key(model.runtime, model.tokenizer, distinct) if cache else None
        encode = functools.partial(encode_texts, model, distinct)
        texts = caching.get_or_compute(cache, key, encode)
        row = {text: number for number, text in enumerate(distinct)}
        there = iter(features)
        for i in places:
            feature = None if dataset.keys[i] in failed else next(there)
            own = texts[[row[text] for text in captions[i]]]
            empty = np.full(len(own), np.nan)
            scores.append(empty if feature is None else (own @ feature).double().numpy())
        on_progress(places.stop, len(dataset))
    return np.concatenate(scores), broken


def _copies(dataset: Dataset, captions: Sequence[Sequence[str]]) -> list[int]:
    """Places of pairs that another pair before them is the same as: of the same picture, byte for
    byte, with the same caption but for case and spaces."""
    of_bytes = list(range(len(dataset)))
    if len(dataset) <= MOST and dataset.digest is not None and dataset.stamp is not None:
        for same in alike([dataset]):
            for _, i in same:
                of_bytes[i] = min(place for _, place in same)
    seen: set[tuple[int, str]] = set()
    found = []
    pairs = ((i, text) for i, own in enumerate(captions) for text in own)
    for number, (picture, text) in enumerate(pairs):
        pair = of_bytes[picture], like(text)
        if pair in seen:
            found.append(number)
        seen.add(pair)
    return found


def _dropped(
    dataset: Dataset, pictures: np.ndarray, found: Sequence[str | None]
) -> dict[str, dict[str, Any]]:
    """By reason how many pairs, and the first few pictures."""
    names: dict[str, list[str]] = {}
    for picture, why in zip(pictures, found, strict=True):
        if why is not None:
            names.setdefault(why, []).append(dataset.keys[picture])
    return {
        why: {"count": len(own), "first": list(dict.fromkeys(own))[:FIRST]}
        for why, own in sorted(names.items(), key=lambda item: -len(item[1]))
    }


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    there = scores[~np.isnan(scores)]
    values = np.quantile(there, SHARES)
    return {f"{100 * s:g}%": round(float(v), 6) for s, v in zip(SHARES, values, strict=True)}


def _counts(found: Sequence[str | None]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in Counter(filter(None, found)).items())


def _hash(name: str) -> bytes:
    return hashlib.sha256(to_bytes(name)).digest()
