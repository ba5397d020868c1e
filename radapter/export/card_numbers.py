"""The numbers in a model card: scores, curves over alpha, and what was compared with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radapter.evaluation.scores import headlines, name_of


def write(facts: Mapping[str, Any]) -> str:
    """Their text, from the manifest's facts."""
    return f"{_results(facts)}{_curves(facts)}{_checked(facts)}{_parity(facts)}"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _results(facts: Mapping[str, Any]) -> str:
    """What the run measured of these very weights, and of the base model beside them."""
    text = ""
    for suite in facts.get("results", []):
        labels = list(suite["models"])
        rows = []
        for dataset, first in suite["models"][labels[0]].items():
            for metric in sorted(headlines()):
                if metric in first:
                    cells = [_score(suite["models"][label][dataset], metric) for label in labels]
                    note = f" ({first['partial']})" if first.get("partial") else ""
                    what = f"{dataset}{note}", first["role"], name_of(metric)
                    rows.append((*what, *cells))
        text += f"Suite `{suite['suite']}`, in % with 95 % intervals:\n\n"
        text += table(("data", "role", "metric", *labels), rows) + "\n"
    return f"## Results\n\n{text}" if text else ""


def _score(scores: Mapping[str, Any], metric: str) -> str:
    if metric not in scores:  # an engine without what it is scored by
        return "-"
    low, high = scores[metric]["interval"]
    return f"{100 * scores[metric]['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _curves(facts: Mapping[str, Any]) -> str:
    text = ""
    for curve in facts.get("alpha_curves", []):
        columns = [key for key in curve["points"][0] if key != "alpha"]
        rows = [
            (f"{point['alpha']:g}", *(f"{100 * point[key]:.1f}" for key in columns))
            for point in curve["points"]
        ]
        text += f"Over alpha, on {curve['on']}, {name_of(curve['metric'])} in %:\n\n"
        text += table(("alpha", *columns), rows) + "\n"
    return text


def _checked(facts: Mapping[str, Any]) -> str:
    checks = [
        (
            f"`{file}`",
            ", ".join(check["for"]),
            f"{check['worst_cosine']:.7f}",
            f"{check['max_abs_difference']:.1e}",
        )
        for file, check in facts["models"].items()
    ]
    return (
        "## Checked\n\n"
        "Reloaded in a fresh process and compared with PyTorch on the same inputs, in batches of "
        f"{', '.join(str(n) for n in facts['verification']['batches'])}:\n\n"
        + table(("file", "for", "worst cosine", "largest difference"), checks)
        + "\n"
    )


def _parity(facts: Mapping[str, Any]) -> str:
    """What the gate compared on data: each engine with PyTorch in fp32."""
    text = ""
    for compared in facts.get("parity", []):
        rows = []
        for row in compared["verdicts"]:
            largest = max(row["metrics"], key=lambda m: abs(m["difference"]), default=None)
            rows.append(
                (
                    row["label"],
                    f"{row['cosine']['worst']:.7f}",
                    "" if row["agreement"] is None else f"{100 * row['agreement']:.2f}",
                    ""
                    if largest is None
                    else f"{100 * largest['difference']:+.2f} ({largest['dataset']}: "
                    f"{name_of(largest['metric'])})",
                )
            )
        head = "engine", "worst cosine", "top-1 agreement, %", "largest difference of a metric"
        text += (
            f"Compared with PyTorch in fp32 on {compared['pictures']:,} pictures of "
            f"`{compared['suite']}`:\n\n{table(head, rows)}\n"
        )
        files = [
            (
                f"`{row['file']}`",
                f"{row['cosine']:.7f}",
                f"{100 * row['agreement']:.2f}" if "agreement" in row else "",
                f"{row['difference']:.4f}" if "difference" in row else "",
            )
            for row in compared["files"]
        ]
        if files:
            head = "file", "worst cosine", "top-1 agreement, %", "probability, off by at most"
            text += table(head, files) + "\n"
    return text or "Not compared with PyTorch on any data.\n\n"
