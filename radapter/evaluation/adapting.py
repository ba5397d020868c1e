"""Which suites are meant: those of a run or named, and how they are changed for one evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from radapter.errors import UsageError
from radapter.evaluation import own_data
from radapter.evaluation.suite import Suite, held_out_suite, load_suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.run import Run


def suites_of_run(
    run: Run, names: Sequence[str] = (), data: str | None = None, pictures: str | None = None
) -> list[Suite]:
    """The suites to score a run on: what lies at `data`, else those that are named, else those of
    its recipe, else its held-out data.

    Args:
        data: with `pictures`, see `own_data.suite_of`; its classes are answered among those of the
            run.

    Raises:
        UsageError: there is none, or it is unknown.
    """
    recipe = run.recipe()
    classes = run.class_names()
    if data is not None:
        prompts = recipe.data.prompts()
        suite = own_data.suite_of(
            data, prompts, classes=classes, pictures=pictures, trained=recipe.data
        )
        return [with_controls(suite)]
    if names or recipe.suites:
        return [load_suite(name).for_recipe(recipe) for name in names or recipe.suites]
    return [with_controls(held_out_suite(recipe, classes))]


def with_controls(suite: Suite) -> Suite:
    """The suite with the controls of its data sets, see `Data.controls`."""
    datasets: list[SuiteDataset] = []
    for own in suite.datasets:
        datasets.append(own)
        for name, data in own.data.controls().items():
            change = {"name": f"{own.name}-{name}", "role": "control", "data": data}
            datasets.append(own.model_copy(update=change))
    return suite.model_copy(update={"datasets": datasets})


def changed(
    suites: Sequence[Suite],
    protocols: Sequence[str] = (),
    without: Sequence[str] = (),
    broken_images: int | None = None,
    rerank: bool = True,
) -> list[Suite]:
    """The suites with `DATASET=PROTOCOL` set and data sets left out, each where it is there; with
    `rerank` false by cosines alone.

    Raises:
        UsageError: no suite has such a data set or protocol.
    """
    suites = list(suites)
    for item in protocols:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--protocol takes DATASET=PROTOCOL, found '{item}'.")
        suites = [s.with_protocol(name, value) if s in _having(suites, name) else s for s in suites]
    for name in without:
        suites = [s.without([name]) if s in _having(suites, name) else s for s in suites]
    if broken_images is not None:
        suites = [s.allowing(broken_images) for s in suites]
    return suites if rerank else [s.without_reranking(named=True) for s in suites]


def _having(suites: list[Suite], dataset: str) -> list[Suite]:
    """The suites with such a data set; if there is none, the first, which then says what it has."""
    having = [suite for suite in suites if suite.names_of(dataset)]
    return having or suites[:1]
