"""What a study leaves on disk: a folder of JSON that can be committed, and its tables be made of.

    results/NAME/
        study.json            the study as it was run, and which run is what in it
        METHOD-seedS-KEY.json
                              one run: its recipe, its cost, and what it scores
        table.json            made of these: means, deviations, intervals, what survives Holm
        table.md              the same to be read
        report.html           the page of `radapter report`

A run is named by the hash of its resolved recipe, so two methods of a study may share one (full
fine-tuning at alpha 1, and interpolated). `study.json`:

    schema_version  1
    study           the study file with all defaults, as `radapter recipes schema study` has it
    trained_metric  what held-out data is scored by: "accuracy", or "text_to_image_r1"
    suites          their names; the study has files of one's own by their paths
    methods         by label, in the order of the study file
        alpha       "auto" or a number; 0 is the zero-shot model, which has no trials
        shows       measures of the table that its row has from others, by name
        settings    the changes of each trial, a list of lists: the grid
        trials      a list of {set, fold, seed, run}, for each setting and seed: `set` are its
                    changes, `run` is the name of its file without .json
        chosen      the place in `settings` of the one that finalists have; null while trials are
                    missing
        finalists   a list of {fold, seed, run}; empty while nothing is chosen

The file of a run:

    schema_version  1
    key             hash of the resolved recipe
    kind            "trained" or "zero-shot"
    recipe          the resolved recipe with all defaults
    base_hash       of the weights that training started from
    versions        of the packages that a number depends on
    cost            trained_parameters, stored_bytes, steps, seconds (of training, and
                    of a merge that learns),
                    peak_memory_bytes, memory_of ("cuda", "process"), scoring_seconds; null where
                    it is not known, and of the zero-shot model
    curves          of training, as far as it was logged: by name, as `loss` and `validation
                    METRIC` in %, a list of [step, value], at most 50; empty of soups, of runs that
                    a rule merges, and of the zero-shot model. Absent in results of earlier versions
    held_out        scores on held-out data of the training distribution, which choices look at
        items       how many there are, of the trained metric
        precision   what they were computed in, as the study says; fp32 where it is absent
        auto        the alpha that `radapter merge --alpha auto` takes; null where no method of the
                    run does
        points      a list of {alpha, METRIC: share, ..., behind, standard_error}: the last two are
                    of the trained metric, see `evaluation.alphas`
    suites          by name; empty for a run that is a trial alone: no trial is scored on them
        definition  hash of what the suite says, as it was scored
        protocol    as results of `radapter eval` have it; `averages` are in it
        alphas      where it was scored, rising
        clusters    a list of lists of numbers: what is resampled together, such as classes. A list
                    that two data sets share is drawn once for both. A number n instead of a list:
                    n pictures, each by itself
        datasets    by name
            role        "in-distribution", "shifted", ...
            pictures, classes, fingerprint, partial, remarks
                        as in results of `radapter eval`
            further     by name, as `calibration_error`: a value for each alpha
            metrics     by name, those that tables show
                clusters  which of the suite's `clusters` its items belong to, by place
                chance    what guessing scores
                trivial   what further answers that look at no picture score, by what they are;
                          absent where there are none
                items     how many items each cluster has: counts
                right     a list, an entry for each alpha: how many of them are hits: counts

`table.json`, which `study.table.summarise` gives too:

    schema_version  1
    study           name, description, baseline
    columns         a list of {suite, place, role, sets, metric}: `place` is a data set, a role or
                    an average of the suite, `sets` its data sets, `role` theirs, null if they
                    have several
    methods         a list, in the order of the study file
        label       as the study file has it
        kind        "trained" or "zero-shot"
        rule        of alpha: "auto" or a number
        set         the chosen overrides of its grid
        runs        a list of {fold, seed, run, alpha}
        cost        means over the runs: the keys of `cost` above that are numbers
        values      for each column {mean, deviation, interval, by_run}: `deviation` is over seeds
                    (n - 1), null with one; `interval` is of seeds and clusters
        differences for each column {mean, interval, p, shown, holm} from the baseline, paired;
                    null for the baseline itself. `shown`: the interval does not hold 0. `holm`: it
                    survives Holm's correction for all comparisons; null if it is none of them
        controls    a list of {column, control, mean, interval, error}: what it scores in a column
                    above its control in another, both by their place in `columns`; `error` is the
                    standard error whose normal interval is as wide
        curve       a list of {alpha, values}: the mean in each column, where every run was scored
    trivial         a list of {label, values}: what guessing ("chance") and further answers that
                    look at no picture score, for each column; null where there is none
    comparisons     how many there are, and so what Holm's correction is for
    incomplete      a list of {label, done, of}: methods that lack runs, and are not in `methods`
    notes           sentences

Shares are from 0 to 1. Counts are a string with a digit for each cluster ("1101"), or, where one
has more than 9 (or a part of one), a list of numbers. A share is the sum of `right` divided by that
of `items`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radapter.errors import BrokenInput
from radapter.files import write_atomic
from radapter.run import Run

SCHEMA_VERSION = 1
POINTS = 50
"""Of each curve of training at most"""
Counts = str | list[float]


@dataclass(frozen=True)
class Folder:
    """Where the results of a study are."""

    path: Path

    @property
    def study(self) -> Path:
        return self.path / "study.json"

    @property
    def table(self) -> Path:
        return self.path / "table.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def run(self, name: str) -> Path:
        """The file of a run."""
        return self.path / f"{name}.json"

    def read_study(self) -> dict[str, Any]:
        """`study.json`.

        Raises:
            BrokenInput: it is missing or damaged.
        """
        if not self.study.is_file():
            raise BrokenInput(
                f"{self.path} has no results of a study: {self.study.name} is missing. Type first: "
                "radapter study STUDY"
            )
        return _read(self.study)

    def read_run(self, name: str) -> dict[str, Any] | None:
        """The result of a run; None if there is none yet.

        Raises:
            BrokenInput: it is damaged.
        """
        path = self.run(name)
        return _read(path) if path.is_file() else None

    def write_run(self, name: str, content: dict[str, Any]) -> None:
        """Lists of numbers stand in one line each, so that a change can be read."""
        write_atomic(self.run(name), _text({"schema_version": SCHEMA_VERSION} | content))

    def write_study(self, content: dict[str, Any]) -> None:
        write_atomic(self.study, _text({"schema_version": SCHEMA_VERSION} | content))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] == SCHEMA_VERSION:
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BrokenInput(
        f"{path} is damaged, or of another version of radapter. Remove it, and type again: "
        "radapter study STUDY"
    )


def _text(content: Any, depth: int = 0) -> str:
    """JSON with a line for each entry of a mapping; what holds no mapping is in one line."""
    if isinstance(content, dict) and content:
        inner = " " * (depth + 1)
        lines = [f"{inner}{json.dumps(k)}: {_text(v, depth + 1)}" for k, v in content.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}" + "\n" * (depth == 0)
    return json.dumps(content, ensure_ascii=False, default=list)


# ---------------------------------------------------------------- counts of clusters


def curves_of(run: Run) -> dict[str, Any]:
    """What training logged of a run, thinned and rounded."""
    logged = run.curves(POINTS).items()
    return {n: [(step, float(f"{v:.5g}")) for step, v in own] for n, own in logged if n != "lr"}


def counts_of(values: np.ndarray) -> Counts:
    """Numbers of clusters [clusters] as they are written."""
    if np.all(values == np.round(values)) and np.all((values >= 0) & (values <= 9)):
        return "".join(str(int(value)) for value in values)
    return [int(v) if v == round(v) else round(float(v), 6) for v in values]


def numbers_of(counts: Counts) -> np.ndarray:
    """Numbers of clusters [clusters] as `counts_of` wrote them."""
    if isinstance(counts, str):
        return np.frombuffer(counts.encode(), np.uint8).astype(float) - ord("0")
    return np.array(counts, dtype=float)


def share_of(metric: dict[str, Any], place: int) -> float:
    """The share of hits at one of the suite's alphas, by its place among them."""
    items = numbers_of(metric["items"])
    return float(numbers_of(metric["right"][place]).sum() / items.sum())


class Clusters:
    """The `clusters` of a suite's result while it is made."""

    def __init__(self) -> None:
        self.lists: list[list[int] | int] = []
        self._known: dict[bytes, int] = {}

    def of(self, items: np.ndarray) -> tuple[int, np.ndarray]:
        """The place of the list for items with these clusters [items], and for each item the place
        of its cluster in that list."""
        names, member = np.unique(items.astype(np.int64), return_inverse=True)
        key = names.tobytes()
        if key not in self._known:
            self._known[key] = len(self.lists)
            alone = len(names) == len(items) and names[0] >= 1 << 40  # pictures of one set
            self.lists.append(len(names) if alone else names.tolist())
        return self._known[key], member


def summed(scores: Sequence[float] | np.ndarray, member: np.ndarray) -> Counts:
    """The sum of scores [items] of each cluster, as counts."""
    return counts_of(np.bincount(member, weights=np.asarray(scores, dtype=float)))
