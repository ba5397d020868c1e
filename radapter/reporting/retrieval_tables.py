"""The table of a suite of retrieval alone: what papers report of it, data set by data set."""

from __future__ import annotations

from typing import Any

from radapter.evaluation.tasks.retrieval import METRICS, RECALLS, RERANKED, WAYS
from radapter.reporting.suite_tables import anchor_cells, notes, tuned_and_engine, with_interval
from radapter.reporting.table import GROUP, Column, Table


def retrieval_table(result: dict[str, Any], title: str) -> Table:
    """For each data set, way and model recalls at 1, 5 and 10, median and mean rank, then the sum
    of the six recalls; under a model whose numbers are published these and how far it is from them,
    and under one that puts its best answers in order again what it has then. After that, what the
    numbers depend on."""
    models = result["models"]
    first = next(iter(models.values()))
    tuned, engine = tuned_and_engine(models)
    columns = [Column("in %", left=True, wrap="never")]
    columns += [Column(name) for name in (*(f"R@{k}" for k in RECALLS), "median", "mean")]
    table = Table(columns, title=title, notes=[notes(result)])
    for name, facts in first["datasets"].items():
        part = " (partial)" if facts["partial"] else ""
        table.add(f"{facts['role']}: {name}{part}", style=GROUP)
        counts = f"{facts['pictures']:,} pictures, {facts['captions']:,} captions"
        table.add(f"  {counts}", style="dim")
        for way, words in reversed(WAYS.items()):
            table.add(f"  {words}")
            metrics = [f"{way}_r{k}" for k in RECALLS]
            for label, model in models.items():
                own = model["datasets"][name]
                recalls = [with_interval(own[metric], METRICS[metric]) for metric in metrics]
                ranks = _ranks(own["retrieval"], way)
                table.add(f"    {label}", *recalls, *ranks)
                if RERANKED[1:] in own:
                    again = [f"{way}{RERANKED}_r{k}" for k in RECALLS]
                    recalls = [with_interval(own[metric], METRICS[metric]) for metric in again]
                    ranks = _ranks(own[RERANKED[1:]], way)
                    table.add("      re-ranked", *recalls, *ranks)
                anchors = model.get("anchors", {}).get(name, {})
                if anchors.keys() & set(metrics):
                    pairs = [anchor_cells(anchors.get(metric)) for metric in metrics]
                    table.add("      published", *(published for published, _ in pairs))
                    table.add("      difference", *(difference for _, difference in pairs))
            if tuned and engine:
                values = [[models[m]["datasets"][name][metric]["value"] for metric in metrics]
                          for m in (engine, tuned)]  # fmt: skip
                cells = [f"{100 * (a - b):+.2f}" for a, b in zip(*values, strict=True)]
                table.add(f"    {engine} - alpha", *cells)
        table.add("  sum of the six")
        for label, model in models.items():
            own = model["datasets"][name]
            table.add(f"    {label}", f"{own['retrieval']['recall_sum']:.1f}     ")
            if RERANKED[1:] in own:
                table.add("      re-ranked", f"{own[RERANKED[1:]]['recall_sum']:.1f}     ")
    return table


def _ranks(found: dict[str, Any], way: str) -> tuple[str, str]:
    """The median and the mean rank."""
    return f"{found[f'{way}_median_rank']:g}", f"{found[f'{way}_mean_rank']:.1f}"
