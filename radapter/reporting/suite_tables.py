"""The table of a suite of classes, data set by data set, with its means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from radapter.data.left_out import IN_WORDS, listed
from radapter.evaluation.scores import Metric, headlines, tasks_of
from radapter.reporting.table import GROUP, Column, Styled, Table


def tuned_and_engine(models: dict[str, Any]) -> tuple[str | None, str | None]:
    """The labels of the merged model and of the engine that is shown beside it, if they are there.
    The table of parity has the further ones."""
    tuned = next((label for label, model in models.items() if model["kind"] == "tuned"), None)
    engines = (label for label, model in models.items() if model["kind"] == "engine")
    return tuned, next(engines, None) if tuned else None


def dataset_table(result: dict[str, Any], title: str) -> Table:
    """A row for each data set, role of several and average, a column a model; then what the numbers
    depend on.

    Beside a model whose numbers are published stand these and how far it is from them.
    """
    models = result["models"]
    first = next(iter(models.values()))
    datasets = first["datasets"]
    anchors = first.get("anchors", {})
    tuned, engine = tuned_and_engine(models)
    labels = list(models)
    if anchors:
        labels[1:1] = ["published", "diff."]
    labels += [f"{engine} -\nalpha"] if engine else []
    # Where it is narrow, names give way and not numbers.
    columns = [Column("", left=True, wrap="letters")]
    columns += [Column(label, wrap="never") for label in labels]
    table = Table(columns, title=title, notes=[notes(result)])

    def add(
        title: str,
        metric: Metric,
        items: list[dict[str, Any] | None],
        anchor: dict[str, Any] | None,
    ) -> None:
        cells = [with_interval(item, metric) if item else Styled("") for item in items]
        if anchors:
            cells[1:1] = anchor_cells(anchor)
        if engine:
            values = dict(zip(models, items, strict=True))
            theirs, ours = values[engine], values[str(tuned)]
            both = theirs["value"] - ours["value"] if theirs and ours else None
            cells.append(Styled("" if both is None else f"{100 * both:+.2f}"))
        table.add(title, *cells)

    def add_harmonic(key: str, second: str) -> None:
        """The harmonic means that are whole once a data set or average stands in the table."""
        for name, mean in first.get("harmonic_means", {}).items():
            if mean["of"][1] == second and key in mean:
                items = [m["harmonic_means"][name][key] for m in models.values()]
                add(f"  harmonic mean: {name}", metric, items, None)
            elif mean["of"][1] == second and key == "accuracy":
                table.add(f"  harmonic mean: {name}: not all is whole", style="dim")

    for key, metric in headlines().items():
        # Not every model has all: that of re-ranked captions needs a matching head.
        having = {
            name: found[0]
            for name in datasets
            if (found := [own for m in models.values() if key in (own := m["datasets"][name])])
        }
        if not having:
            continue
        chances = [metric.text(facts[key]["chance"]) for facts in having.values()]
        table.add(f"{metric.heading} (chance {_range(chances)})", style=GROUP)
        for name, facts in having.items():
            label = f"  {facts['role']}: {name}" + (" (partial)" if facts["partial"] else "")
            anchor = anchors.get(name, {}).get(key)
            add(label, metric, [m["datasets"][name].get(key) for m in models.values()], anchor)
            add_harmonic(key, name)
        for title in _trivial([facts[key] for facts in having.values()], metric):
            table.add(f"  {title}", style="dim")
        for role, mean in means_of_roles(first).items():
            if key not in mean:
                continue
            items = [m["roles"][role].get(key) for m in models.values()]
            add(f"  {role}: mean of {counted(mean)}", metric, items, None)
        for name, mean in first.get("averages", {}).items():
            if key in mean:
                items = [m["averages"][name].get(key) for m in models.values()]
                add(f"  {name}", metric, items, None)
            elif "left_out" in mean:
                table.add(f"  {name}: not all is whole", style="dim")
            add_harmonic(key, name)
        _add_worst(table, models, key, metric, published=bool(anchors))
    if any("calibration_error" in facts for facts in datasets.values()):
        _add_calibration(table, models, published=bool(anchors))
    return table


def _add_worst(
    table: Table, models: dict[str, Any], key: str, metric: Metric, *, published: bool
) -> None:
    """A row of the shifted data set that is worst for each model, if there are several."""
    shifted = [model["roles"].get("shifted", {}) for model in models.values()]
    if any(len(own.get("datasets", [])) < 2 or key not in own for own in shifted):
        return
    means = [own[key] for own in shifted]
    cells = [f"{mean['worst_dataset']} {metric.text(mean['worst'])}     " for mean in means]
    table.add("  worst of shifted", *(cells[:1] + [""] * 2 * published + cells[1:]))


def _add_calibration(table: Table, models: dict[str, Any], *, published: bool) -> None:
    """Rows of the calibration error; `published`: two columns behind the first model's are others'
    numbers."""
    table.add("expected calibration error, %", style=GROUP)
    for name in next(iter(models.values()))["datasets"]:
        cells = [
            f"{100 * m['datasets'][name]['calibration_error']['value']:.1f}     "
            for m in models.values()
        ]
        table.add(f"  {name}", *(cells[:1] + [""] * 2 * published + cells[1:]))


def means_of_roles(model: dict[str, Any]) -> dict[str, Any]:
    """By role of several data sets its means; not where a named average is over the same ones."""
    named = [members(mean) for mean in model.get("averages", {}).values()]
    return {
        role: mean
        for role, mean in model["roles"].items()
        if len(members(mean)) > 1 and members(mean) not in named
    }


def members(mean: dict[str, Any]) -> set[str]:
    """The data sets of a mean, with those that were left out."""
    return {*mean["datasets"], *mean.get("left_out", [])}


def counted(mean: dict[str, Any]) -> str:
    """How many data sets a mean is over, and of how many, if some are left out."""
    left_out = len(mean.get("left_out", []))
    used = len(mean["datasets"])
    return f"{used} of {used + left_out}" if left_out else f"{used}"


def _trivial(items: Sequence[dict[str, Any]], metric: Metric) -> Iterator[str]:
    """What answers that look at no picture score, beside chance, over data sets."""
    found: dict[str, list[str]] = {}
    for item in items:
        for name, value in item.get("trivial", {}).items():
            found.setdefault(name, []).append(metric.text(value))
    for name, values in found.items():
        yield f"{name}: {_range(values)}"


def _not_above(label: str, datasets: dict[str, Any]) -> Iterator[str]:
    """Where a model's score is not above all that takes no look at the picture, by its interval;
    of metrics that have such rows beside chance."""
    found = []
    for key, metric in headlines().items():
        names = [
            name
            for name, facts in datasets.items()
            if (item := facts.get(key)) and item.get("trivial")
            if item["interval"][0] <= max(item["chance"], *item["trivial"].values())
        ]
        if names:
            found.append(f"{', '.join(names)} ({metric.title})")
    if found:
        yield f"{label} is NOT above every trivial row by its interval: {'; '.join(found)}."


def _range(values: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys((min(values, key=float), max(values, key=float))))


def with_interval(item: dict[str, Any], metric: Metric) -> Styled:
    """A value with half of its interval."""
    low, high = item["interval"]
    return Styled(f"{metric.text(item['value'])} ±{metric.text((high - low) / 2):>3}")


def anchor_cells(anchor: dict[str, Any] | None) -> list[Styled]:
    """The published number, and how far ours is from it."""
    if anchor is None:
        return [Styled(""), Styled("")]
    off = "bold red" if is_off(anchor) else ""
    return [
        Styled(f"{100 * anchor['published']:.2f}"),
        Styled(f"{100 * anchor['difference']:+.2f}", off),
    ]


def is_off(anchor: dict[str, Any]) -> bool:
    """Whether a number is further from the published one than it may be."""
    return abs(anchor["difference"]) > anchor["tolerance"] + 1e-9


def notes(result: dict[str, Any]) -> Styled:
    """Every choice that a number depends on, a line each."""
    lines = []
    for label, model in result["models"].items():
        weights = str(model["provenance"].get("weights_hash"))[:16]
        used = ", ".join([model["runtime"], model["device"], model["precision"], weights])
        lines.append(f"{label}: {used}.")
        lines += _not_above(label, model["datasets"])
        lines += [f"For the server, by {label}: {path}" for path in model.get("for_servers", ())]
    first = next(iter(result["models"].values()))
    lines += [f"{result['seen']}."] if "seen" in result else []
    lines += protocol_notes(first, result["protocol"])
    tuned, _ = tuned_and_engine(result["models"])
    if tuned:
        own = result["models"][tuned]["datasets"]
        lines += _own_remarks(tuned, own, first["datasets"])
        for label, model in result["models"].items():
            if model["kind"] == "engine":
                lines += _own_remarks(label, model["datasets"], own)
    return Styled("\n".join(lines), "dim")


def _own_remarks(label: str, datasets: dict[str, Any], others: dict[str, Any]) -> Iterator[str]:
    """What is remarked on a model's scores and not on those of another."""
    sets_of: dict[str, list[str]] = {}
    for name, facts in datasets.items():
        for remark in facts.get("remarks", ()):
            if remark not in others[name].get("remarks", ()):
                sets_of.setdefault(remark, []).append(name)
    for remark, names in sets_of.items():
        which = ", ".join(names) if len(names) < len(datasets) else "all"
        yield f"{label}, {which}: {remark}."


def protocol_notes(first: dict[str, Any], protocol: dict[str, Any]) -> Iterator[str]:
    """What holds for all models of a result, from one of them."""
    datasets, anchors = first["datasets"], first.get("anchors", {})
    yield f"± is half of the interval ({protocol['interval']})."
    tasks = {task for facts in datasets.values() for task in tasks_of(facts)}
    if "classification" in tasks:
        yield f"Head: {protocol['head']}. Calibration: {protocol['calibration']}."
        if not all("template" in facts["protocol"] for facts in datasets.values()):
            yield f"Templates: {_templates(protocol['templates'])}."
    if "retrieval" in tasks:
        yield f"Retrieval: {protocol['retrieval']}."
        if protocol["retrieval"].startswith("texts of the same tokens are one"):
            yield "Published recalls count them apart: `identical_captions: apart`."
    for task in ("segmentation", "motion", "top-5"):
        if task in tasks:
            said = task.replace("-", " ")
            yield f"{said.capitalize()}: {protocol[said]}."
    if "picture-retrieval" in tasks:
        yield f"Pictures by pictures: {protocol['picture retrieval']}."
        counts = [f"{n} {f['queries']:,} in {f['gallery']:,}" for n, f in datasets.items()]
        yield f"Queries in a gallery: {', '.join(counts)}."
    edits = {n: facts for n, facts in datasets.items() if "edits" in facts}
    if edits:
        yield f"Composed retrieval: {protocol['composed']}."
        counts = [f"{n} {f['edits']:,} in {f['gallery']:,}" for n, f in edits.items()]
        yield f"Edits in a gallery: {', '.join(counts)}."
    for name, facts in datasets.items():
        if facts.get("shared_captions"):
            shared = f"{facts['shared_captions']:,} of {facts['captions']:,}"
            yield f"{name}: {shared} captions have the tokens of another picture's."
    counts = [f"{facts['pictures']:,} of {name}" for name, facts in datasets.items()]
    if len(counts) > 1 and len({facts["pictures"] for facts in datasets.values()}) == 1:
        counts = [f"{next(iter(datasets.values()))['pictures']:,} of each set"]
    yield f"Scored: {', '.join(counts)}."
    if pictures := protocol["preprocessing"]:
        keys = ("size", "resize_mode", "interpolation")
        yield f"Pictures: {', '.join(str(pictures[key]) for key in keys if key in pictures)}."
    choices: dict[str, list[str]] = {}
    for name, facts in datasets.items():
        own = protocol.get("dataset_templates", {}).get(name)
        for key, value in facts["protocol"].items():
            if key == "template" and isinstance(own, list):
                value = _templates(own)
            if not key.endswith("hash"):
                choices.setdefault(f"{key}: {value}", []).append(name)
    for choice, names in choices.items():
        yield f"{', '.join(names) if len(names) < len(datasets) else 'All'}: {choice}."
    for name, pair in protocol.get("harmonic_means", {}).items():
        if set(pair) & set(protocol["averages"]):
            yield f"Harmonic mean {name}: {' and '.join(pair)}; no mean of harmonic means."
    for name, facts in datasets.items():
        for remark in facts.get("remarks", ()):
            yield f"{name}: {remark}."
        for reason, passed_over in facts.get("left_out", {}).items():
            examples = listed(passed_over["first"], passed_over["count"])
            words = IN_WORDS.get(reason, reason)
            yield f"{name}: left out: {passed_over['count']:,} {words} ({examples})."
        if facts["partial"]:
            yield f"{name} is partial ({facts['partial']}): it is in no average."
    scores = [(name, item) for name, row in anchors.items() for item in row.values()]
    for source, tolerance in {item["source"]: item["tolerance"] for _, item in scores}.items():
        off = dict.fromkeys(n for n, item in scores if item["source"] == source and is_off(item))
        verdict = f"NOT within: {', '.join(off)}" if off else "all within"
        yield f"published: {source}; {verdict} {100 * tolerance:g} points."
    for name, other in first.get("anchors_elsewhere", {}).items():
        yield f"published for {name} by another protocol alone: --protocol {name}={other}."


def _templates(templates: list[str] | str) -> str:
    if isinstance(templates, str):
        return f"those of open_clip called {templates}"
    more = f" and {len(templates) - 3} more" if len(templates) > 3 else ""
    return ", ".join(map(repr, templates[:3])) + more
