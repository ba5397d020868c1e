"""Published scores of tuned models beside one's own, data set by data set; those of another
protocol or base model apart."""

from __future__ import annotations

from collections.abc import Iterator

from radapter.evaluation.published import PublishedRows
from radapter.evaluation.scores import metric_of
from radapter.evaluation.suite import Suite, load_suite, shipped_suites
from radapter.reporting.comparison import ComparedModel, Comparison
from radapter.reporting.table import GROUP, Column, Table


def published_of(comparison: Comparison) -> Iterator[tuple[Suite, PublishedRows]]:
    """What is published of the suites of a comparison, of those that come with radapter, where a
    model was scored on one of the suite's own data sets (and not on those `instead`)."""
    scored = {key[:2] for _, row in comparison.models() for key in row.by_set}
    for name in comparison.suites():
        if name in shipped_suites():
            suite = load_suite(name)
            if any((name, dataset.name) in scored for dataset in suite.datasets):
                yield from ((suite, rows) for rows in suite.published_rows)


def published_tables(comparison: Comparison) -> Iterator[Table]:
    """A table for each suite and metric of which there are published rows."""
    found: dict[tuple[str, str], tuple[Suite, list[PublishedRows]]] = {}
    for suite, rows in published_of(comparison):
        found.setdefault((suite.name, rows.metric), (suite, []))[1].append(rows)
    for (_, metric), (suite, sources) in found.items():
        yield published_table(comparison, suite, metric, sources)


def published_table(
    comparison: Comparison, suite: Suite, metric: str, sources: list[PublishedRows]
) -> Table:
    """Own rows and published ones of the suite's protocol by base model, then the others."""
    names = [dataset.name for dataset in suite.datasets]
    columns = [Column("", left=True, wrap="letters"), Column("alpha"), *map(Column, names)]
    heading = metric_of(metric).heading
    table = Table(columns, title=f"\n{suite.name}: {heading}, beside published scores")
    letters = dict(zip(map(id, sources), "abcdefghijklmnopqrstuvwxyz", strict=False))

    def add_published(rows: PublishedRows) -> None:
        for method, scores in rows.rows.items():
            cells = [f"{scores[name]:.2f}" if name in scores else "-" for name in names]
            table.add(f"  [{letters[id(rows)]}] {method}", "", *cells)

    def add_own(number: str, row: ComparedModel) -> None:
        alpha = row.facts["alpha"]
        cells = []
        for name in names:
            own = row.by_set.get((suite.name, name, metric))
            cells.append(f"{100 * own.value:.2f}" if own else "-")
        title = f"  #{number} {row.facts['method']}"
        table.add(title, "-" if alpha is None else f"{alpha:g}", *cells)

    alike = [rows for rows in sources if not rows.differs]
    mine = [(n, row) for n, row in comparison.models() if suite.name in row.settings]
    own_way = [(n, row) for n, row in mine if by_protocol(row, suite)]
    bases = dict.fromkeys(
        [_base(row) for _, row in own_way] + [rows.model for rows in alike]
    )  # fmt: skip
    for base in bases:
        table.add(f"{base}, by this suite's protocol", style=GROUP)
        for number, row in own_way:
            if _base(row) == base:
                add_own(number, row)
        for rows in alike:
            if rows.model == base:
                add_published(rows)
    if others := [pair for pair in mine if pair not in own_way]:
        table.add("this comparison's, scored in another way: not comparable", style=GROUP)
        for number, row in others:
            add_own(number, row)
    for rows in sources:
        if rows.differs:
            table.add(f"{rows.model}, by another protocol: not comparable", style=GROUP)
            add_published(rows)
    for rows in sources:
        differs = f" Another protocol: {rows.differs}." if rows.differs else ""
        letter = letters[id(rows)]
        table.note(f"[{letter}] {rows.source}. Protocol: {rows.protocol}.{differs}")
    return table


def by_protocol(row: ComparedModel, suite: Suite) -> bool:
    """Whether a model was scored on whole data sets by the suite's own templates and protocols."""
    settings = row.settings[suite.name]
    choices = {
        name: own for role in settings.get("choices", {}).values() for name, own in role.items()
    }
    return (
        settings["protocol"].get("templates") == suite.templates
        and not any(of == suite.name for of, _ in row.partial)
        and all(
            dataset.protocol is None or dataset.protocol in choices[dataset.name].values()
            for dataset in suite.datasets
            if dataset.name in choices
        )
    )


def _base(row: ComparedModel) -> str:
    return str(row.facts["base_model"]).replace("-quickgelu:", ":")
