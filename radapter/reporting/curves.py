"""Curves over alpha, from results of `radapter eval --alphas`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from radapter.evaluation.scores import main_metrics, metric_of
from radapter.reporting.plots import Curve, trade_off

Axis = tuple[str, str]
"""(role, metric)"""


def axes(result: dict[str, Any]) -> tuple[Axis, list[Axis]]:
    """What is drawn of a result over alphas: the trained task on the distribution that was trained,
    against both tasks on the first other role; no panels if the suite has no other role."""
    roles = result["points"][0]["roles"]
    if not roles:  # all of it is partial
        return ("", ""), []
    own = "in-distribution" if "in-distribution" in roles else next(iter(roles))
    others = [role for role in roles if role != own]
    metrics = [metric for metric in main_metrics().values() if metric in roles[own]]
    if not metrics:
        return ("", ""), []
    trained = result["trained_metric"] if result["trained_metric"] in metrics else metrics[0]
    return (own, trained), [(others[0], metric) for metric in metrics] if others else []


def axis_label(axis: Axis, result: dict[str, Any]) -> str:
    """What is written along an axis: the metric and the data sets it is of."""
    role, metric = axis
    names = result["points"][0]["roles"][role]["datasets"]
    what = names[0] if len(names) == 1 else f"{role}, mean of {len(names)}"
    return f"{metric_of(metric).heading}: {what}"


def curve(result: dict[str, Any], label: str) -> Curve:
    """The curve of a result of `radapter eval --alphas`."""
    points = result["points"]

    def at(point: dict[str, Any], axis: Axis) -> list[float]:
        item = point["roles"][axis[0]][axis[1]]
        return [item["value"], *item["interval"]]

    x, panels = axes(result)
    chosen = next((p for p in points if p["alpha"] == result["chosen"]), None)
    return Curve(
        label,
        [at(p, x)[0] for p in points],
        [[at(p, panel)[0] for p in points] for panel in panels],
        (at(chosen, x), [at(chosen, panel) for panel in panels]) if chosen else None,
    )


def draw(result: dict[str, Any], label: str, path: Path) -> Path | None:
    """Draw the result of `radapter eval --alphas`; None, if the suite has one role only or there is
    no matplotlib."""
    x, panels = axes(result)
    if not panels or not importlib.util.find_spec("matplotlib"):
        return None
    labels = [axis_label(axis, result) for axis in (x, *panels)]
    trade_off([curve(result, label)], labels[0], labels[1:], path)
    return path
