"""What runs score over alpha, from their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from radapter.errors import BrokenInput
from radapter.evaluation.scores import main_metrics
from radapter.evaluation.suite import trained_metric
from radapter.evaluation.written import of_kind, read_result
from radapter.reporting.comparison import Number
from radapter.reporting.report.figures import Line, Place
from radapter.run import Run

Scores = dict[Place, Number]


def over_alpha(run: Run) -> dict[str, Line]:
    """By suite what a run scores over alpha: of `radapter eval --alphas` where there is such a
    result, else the zero-shot and the merged model alone."""
    found: dict[str, Line] = {}
    for path in sorted(
        run.evaluations.glob("*.json"), key=lambda path: (len(path.stem), path.stem)
    ):
        try:
            result = read_result(path)
            if "points" in result:
                points = [(float(p["alpha"]), scores_of(p)) for p in result["points"]]
                chosen = result["chosen"]
            elif "models" in result and of_kind(result, "tuned"):
                labels = [*of_kind(result, "zero-shot"), *of_kind(result, "tuned")]
                models = [result["models"][label] for label in labels]
                points = [(float(model["alpha"]), scores_of(model)) for model in models]
                chosen = result["alpha"]
            else:
                continue
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            raise BrokenInput(f"{path} is damaged: remove it and evaluate again.") from None
        known = found.get(result["suite"])
        if known is None or len(points) > len(known.points):
            found[result["suite"]] = Line(run.name, points, chosen)
    return found


def scores_of(model: dict[str, Any]) -> Scores:
    """The numbers of a model: means of roles of several data sets, then each data set."""
    found: Scores = {}
    parts = [
        (f"{role}, mean of {len(facts['datasets'])}", facts)
        for role, facts in model["roles"].items()
        if len(facts["datasets"]) > 1
    ]
    parts += [(f"{name} ({facts['role']})", facts) for name, facts in model["datasets"].items()]
    for title, facts in parts:
        for metric in main_metrics().values():
            if metric in facts:
                low, high = facts[metric]["interval"]
                value = Number(float(facts[metric]["value"]), (float(low), float(high)))
                found[title, metric] = value
    return found


def trained_place(run: Run, places: Sequence[Place]) -> Place:
    """What was trained: the first place of the training distribution, by the trained metric."""
    metric = trained_metric(run.recipe())
    own = [p for p in places if "in-distribution" in p[0]] or list(places)
    return next((place for place in own if place[1] == metric), own[0])


def mean_line(label: str, lines: Sequence[Line]) -> Line:
    """One line as it is; of several the mean where all have a point, with its deviation."""
    if len(lines) == 1:
        return Line(label, lines[0].points, lines[0].chosen)
    by_alpha = [dict(line.points) for line in lines]
    points = []
    for alpha, first in by_alpha[0].items():
        if all(alpha in own for own in by_alpha):
            common = [place for place in first if all(place in own[alpha] for own in by_alpha)]
            values = {p: np.array([own[alpha][p].value for own in by_alpha]) for p in common}
            means = {
                place: Number(float(own.mean()), None, deviation=float(own.std(ddof=1)))
                for place, own in values.items()
            }
            points.append((alpha, means))
    chosen = {line.chosen for line in lines}
    return Line(label, points, chosen.pop() if len(chosen) == 1 else None)
