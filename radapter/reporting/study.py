"""The built-in study of methods on emoji: its numbers, to stand beside a run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from radapter.reporting.curves import Axis
from radapter.reporting.plots import Curve

PATH = Path(__file__).with_name("emoji_study.json")
METHODS = {
    "full": "full fine-tuning (interpolated: WiSE-FT)",
    "lora": "LoRA",
    "r-adapter": "R-Adapter",
}
"""Those that are drawn"""
ROLES = {"in-distribution": "noto", "unseen": "unseen", "seen": "seen"}


def table(name: str = "emoji") -> dict[str, Any]:
    """One table of the built-in study: its `runs` and, for each of its `methods`, the numbers.

    `benchmarks/emoji_study.py tables` prints them.
    """
    return json.loads(PATH.read_text(encoding="utf-8"))["tables"][name]


def curves(
    summary: dict[str, Any], x: Axis, panels: list[Axis], methods: dict[str, str]
) -> list[Curve]:
    """Curves of the study's methods (name in the study -> label) over the same axes."""

    def of(numbers: dict[str, Any], axis: Axis) -> Any:
        return numbers[axis[1]][ROLES[axis[0]]]

    found = []
    for name, label in methods.items():
        method = summary["methods"][name]
        points = method["curve"]
        found.append(
            Curve(
                label,
                [of(point, x) for point in points],
                [[of(point, panel) for point in points] for panel in panels],
                (of(method["chosen"], x), [of(method["chosen"], panel) for panel in panels]),
            )
        )
    return found
