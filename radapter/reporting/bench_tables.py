"""The tables that `radapter bench` prints, from a result as plain data."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from radapter.reporting.table import GROUP, Column, Table, cosine_text

BUSY = 0.25  # of the cores, before anything was measured


def bench_table(result: dict[str, Any]) -> Table:
    """A table with a group of rows for each tower and batch, and what is to be known with it."""
    machine = result["machine"]
    parts = machine["cpu"], machine["instructions"], f"{machine['cores']} cores", machine["gpu"]
    titles = "threads", "median", "p95", "per second", "speed", "cosine"
    table = Table(
        [Column("", left=True, wrap="never"), *(Column(title, wrap="never") for title in titles)],
        title=f"{result['model']}, texts of {result['text_length']} tokens, on "
        f"{', '.join(filter(None, parts))}",
    )
    for (tower, batch), cases in groupby(result["cases"], itemgetter("tower", "batch")):
        table.add(f"{tower}, batch {batch}", style=GROUP)
        for case in cases:
            table.add(*_row(case))
    halves = any(case.get("speedup_over") == "fp16" for case in result["cases"])
    over = " (in fp16 for engines of less than fp32)" if halves else ""
    table.note(
        "median and p95 in ms of a call; per second: pictures, texts and so on; speed: times "
        f"PyTorch eager of the same batch, device and threads{over}; cosine: the worst to "
        f"PyTorch's features of these inputs. {result['rounds']} rounds, in turns."
    )
    load, cores = machine["load_before"], machine["cores"]
    if load is not None and cores and load > BUSY * cores:
        table.note(
            f"The machine was busy before (load {load:.1f} on {cores} cores): trust the ratios "
            "more than the times.",
            "yellow",
        )
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in result["left_out"]:
        reasons.setdefault((item["runtime"], item["reason"]), []).append(item["precision"])
    for (runtime, reason), precisions in reasons.items():
        table.note(f"left out: {runtime} ({', '.join(precisions)}): {reason}", "")
    return table


def _row(case: dict[str, Any]) -> list[str]:
    speedup, cosine = case["speedup"], case["worst_cosine"]
    return [
        f"  {case['runtime']} {case['precision']}",
        "" if case["threads"] is None else str(case["threads"]),
        _digits(case["median_ms"]),
        _digits(case["p95_ms"]),
        _digits(case["per_second"]),
        "-" if speedup is None else f"{speedup:.2f}",
        "-" if cosine is None else cosine_text(cosine),
    ]


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
