"""A suite: a named list of data sets with their task and their role. Suites are YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from radapter.data import Dataset, open_data
from radapter.errors import BrokenInput, UsageError, nearest
from radapter.recipe import Name, Recipe, read_yaml, validate
from radapter.recipe_data import DataSource, EmojiData, Section, Templates

Task = Literal["classification", "retrieval"]
Role = Literal["in-distribution", "shifted", "unseen", "seen", "zero-shot"]
FOLDER = Path(__file__).parent / "suites"


class SuiteDataset(Section):
    name: Name
    role: Role
    data: DataSource


class Suite(Section):
    name: Name
    description: str = ""
    templates: Templates = Field(default=["a photo of a {}."])
    """Prompts of the zero-shot classifier: the mean of the normalized features over all of them,
    normalized again"""
    tasks: Annotated[list[Task], Field(min_length=1)]
    datasets: Annotated[list[SuiteDataset], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [dataset.name for dataset in self.datasets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two data sets are called '{twice}'")
        return self

    def roles(self) -> list[str]:
        return list(dict.fromkeys(dataset.role for dataset in self.datasets))

    def for_recipe(self, recipe: Recipe) -> Suite:
        """The suite on the fold that the recipe kept for testing."""
        if not isinstance(recipe.data, EmojiData):
            return self
        update = {"fold": recipe.data.fold}
        datasets = [
            dataset.model_copy(update={"data": dataset.data.model_copy(update=update)})
            if isinstance(dataset.data, EmojiData)
            else dataset
            for dataset in self.datasets
        ]
        return self.model_copy(update={"datasets": datasets})

    def open(self) -> dict[str, dict[Task, Dataset]]:
        """Every data set for every task, by name.

        Raises:
            BrokenInput: what is missing or damaged, all of it in one message.
        """
        opened: dict[str, dict[Task, Dataset]] = {}
        problems = []
        for dataset in self.datasets:
            for task in self.tasks:
                kind = "classification" if task == "classification" else "captions"
                settings = dataset.data.model_copy(update={"task": kind})
                try:
                    opened.setdefault(dataset.name, {})[task] = open_data(settings)
                except BrokenInput as error:
                    problems.append(f"{dataset.name}: {error}")
        if problems:
            raise BrokenInput(f"Suite {self.name}:\n" + "\n".join(dict.fromkeys(problems)))
        return opened


def shipped_suites() -> dict[str, Path]:
    """The suites that come with radapter, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_suite(name: str) -> Suite:
    """A suite by name, or from a YAML file of one's own."""
    known = shipped_suites()
    if name in known:
        path = known[name]
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"Suite file not found: {path}")
    else:
        raise UsageError(f"Unknown suite '{name}'.{nearest(name, list(known))}")
    return validate(Suite, read_yaml(path), str(path))


def held_out_suite(recipe: Recipe) -> Suite:
    """The held-out pictures of the training distribution, as a suite of one data set.

    Raises:
        UsageError: the recipe has no held-out data.
    """
    settings = recipe.validation_data()
    if settings is None:
        raise UsageError(
            "This needs held-out data of the training distribution: set data.hold_out (such as "
            "0.1) or a `validation` section in the recipe, and train again."
        )
    return Suite(
        name="held-out",
        templates=settings.templates,
        tasks=["classification" if settings.task == "classification" else "retrieval"],
        datasets=[SuiteDataset(name="held-out", role="in-distribution", data=settings)],
    )
