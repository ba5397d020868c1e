"""A suite: a named list of data sets with their task and their role. Suites are YAML files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from radapter.data import Dataset, open_data
from radapter.data.settings import Data, MissingData, Templates
from radapter.errors import BrokenInput, MissingDependency, RadapterError, UsageError, nearest
from radapter.evaluation.published import Anchors, PublishedRows
from radapter.evaluation.scores import Task, main_metrics, task_for
from radapter.evaluation.suite_dataset import Role, SuiteDataset
from radapter.recipe import Name, Recipe, validate
from radapter.recipe_yaml import read_file
from radapter.registry import TASKS, Section, load

FOLDER = Path(__file__).parent / "suites"
LONGEST = 120
"""Characters of a suite's name and changes in the name of a file"""


class Instead(Section):
    """What a suite scores a run on that was trained on data of the same source as these sets."""

    datasets: Annotated[list[SuiteDataset], Field(min_length=1)]
    """The data sets."""
    harmonic_means: dict[str, tuple[str, str]] = Field(default={})
    """Harmonic means of the accuracies of two of them, by a name for each."""


class Suite(Section):
    """Data sets and what is scored on them: a YAML file that `radapter eval --suite` takes."""

    name: Name
    """The name of the suite. Its results are called by it."""
    description: str = ""
    """One line for `radapter data`."""
    templates: Templates = Field(default=["a photo of a {}."])
    """Prompts for class names, in which `{}` stands for the name; `openai` is open_clip's list of
    80. The classifier is the mean of the normalized features of all of them, normalized again."""
    tasks: Annotated[list[Task], Field(min_length=1)]
    """What is scored on each data set, such as `classification`, `retrieval` or both."""
    datasets: Annotated[list[SuiteDataset], Field(min_length=1)]
    """The data sets, in the order of tables."""
    instead: Instead | None = None
    """Data sets that take the place of all others for a run that was trained on their source."""
    averages: dict[str, Annotated[list[str], Field(min_length=1)] | Role] = Field(default={})
    """Means over data sets, by a name for each: a list of data sets, or a role, which means all
    data sets that have it."""
    harmonic_means: dict[str, tuple[str, str]] = Field(default={})
    """Harmonic means of the accuracies of two data sets or averages, by a name for each."""
    identical_captions: Literal["one", "apart"] = "one"
    """How a caption that several pictures have is scored. `one`: it is one text, right for each of
    them. `apart`: it is as many texts, each right for its own picture, as in published recalls."""
    anchors: list[Anchors] = Field(default=[])
    """Published zero-shot scores, which results are compared with."""
    published_rows: list[PublishedRows] = Field(default=[])
    """Published scores of tuned models, which `compare` and `report` show beside one's own."""
    seen: dict[str, str] = Field(default={})
    """What models have seen in pre-training of these data sets, by model. It stands under every
    table; of other models it says there that this is not known."""
    changes: list[str] = Field(default=[])
    """What options of `radapter eval` changed: `DATASET-PROTOCOL`, `without-DATASET`, `no-rerank`.
    It is not for writing by hand."""

    @property
    def file_name(self) -> str:
        """What its results are called: its name and its changes, so that what is scored in another
        way does not take the place of the suite's own result."""
        name = "-".join([self.name, *sorted(set(self.changes))])
        if len(name) > LONGEST:  # a file's name has 255 bytes at most, and more is added to it
            name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return name

    @model_validator(mode="after")
    def _names_fit(self) -> Suite:
        names = [dataset.name for dataset in self.datasets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two data sets are called '{twice}'")
        lists = [members for members in self.averages.values() if isinstance(members, list)]
        used = [name for members in lists for name in members]
        used += {n for pair in self.harmonic_means.values() for n in pair} - {*self.averages}
        for anchors in self.anchors:
            used += [*anchors.protocols, *(n for row in anchors.scores.values() for n in row)]
        used += [name for own in self.published_rows for row in own.rows.values() for name in row]
        unknown = next((name for name in used if name not in names), None)
        if unknown:
            raise ValueError(f"no data set is called '{unknown}'")
        if self.harmonic_means and "classification" not in self.tasks:
            raise ValueError("harmonic_means needs accuracies: add classification to tasks")
        return self

    def roles(self) -> list[str]:
        """Those that means are taken over."""
        return list(dict.fromkeys(d.role for d in self.datasets if d.role != "control"))

    def members(self, name: str) -> list[str]:
        """The data sets of an average; of a data set itself."""
        members = self.averages.get(name, [name])
        if isinstance(members, list):
            return members
        return [dataset.name for dataset in self.datasets if dataset.role == members]

    def prompts(self, dataset: SuiteDataset) -> Templates:
        """The templates of one of its data sets: its own, or the suite's."""
        return dataset.own_prompts() or self.templates

    def names_of(self, name: str) -> list[str]:
        """The data sets that a name means: one with its controls, called NAME-...; or by `dtd`
        `dtd-base` and `dtd-novel`; or all by the suite's own name."""
        names = [dataset.name for dataset in self.datasets]
        if name in names:
            controls = [d.name for d in self.datasets if d.role == "control"]
            return [name, *(n for n in controls if n.startswith(f"{name}-"))]
        return names if name == self.name else [n for n in names if n.startswith(f"{name}-")]

    def for_recipe(self, recipe: Recipe) -> Suite:
        """The suite for a model that a recipe trains.

        Data sets are as their sources fit them to what was trained on; sets that do not fit are
        left out, unless none of that source fits. Paths start from the recipe's data root.
        """
        trained = recipe.data
        if self.instead and trained.source in {d.data.source for d in self.instead.datasets}:
            alone = {"instead": None, "averages": {}, **dict(self.instead)}
            return self.model_copy(update=alone).for_recipe(recipe)
        fitted = {d.name: _fitted(d, trained) for d in self.datasets}
        unfit = [name for name, found in fitted.items() if found is None]
        alike = [d.name for d in self.datasets if d.data.source == trained.source]
        suite = self.without(unfit) if unfit and unfit != alike else self
        datasets = []
        for given in suite.datasets:
            dataset = fitted[given.name] or given
            if dataset.data.is_set_of(trained):
                dataset = dataset.model_copy(update={"role": "in-distribution"})
            if not dataset.data.has_counts_of(given.data):
                dataset = dataset.model_copy(update={"published": None})
            datasets.append(_rooted(dataset, trained.data_root))
        # What the recipe leaves is no change of the user's.
        return suite.model_copy(update={"datasets": datasets, "changes": self.changes})

    def with_protocol(self, dataset: str, protocol: str) -> Suite:
        """The suite with another protocol for one of its data sets, or for all that a name means.

        Raises:
            UsageError: there is no such data set, or it has no such protocol.
        """
        names = self.names_of(dataset)
        if not names:
            raise self._unknown(dataset)
        changed = [_by_protocol(d, protocol) if d.name in names else d for d in self.datasets]
        changes = [] if changed == self.datasets else [f"{dataset}-{protocol}"]
        return self.model_copy(update={"datasets": changed, "changes": self.changes + changes})

    def _unknown(self, dataset: str) -> UsageError:
        names = [d.name for d in self.datasets]
        return UsageError(f"{self.name} has no data set '{dataset}'.{nearest(dataset, names)}")

    def allowing(self, broken_images: int) -> Suite:
        """The suite with another number of pictures of each data set that may be unreadable."""
        update = {"broken_images": broken_images}
        datasets = [
            d.with_data([own.model_copy(update=update) for own in d.all_data()])
            for d in self.datasets
        ]
        return self.model_copy(update={"datasets": datasets})

    def without_reranking(self, *, named: bool = False) -> Suite:
        """The suite with answers in the order of cosines alone.

        Args:
            named: whether results are called so.
        """
        again = [d for d in self.datasets if d.match.rerank]
        changed = {d.name: d.match.model_copy(update={"rerank": None}) for d in again}
        datasets = [
            d.model_copy(update={"match": changed[d.name]}) if d in again else d
            for d in self.datasets
        ]
        changes = [*self.changes, *(["no-rerank"] if named and again else [])]
        return self.model_copy(update={"datasets": datasets, "changes": changes})

    def without(self, names: Collection[str]) -> Suite:
        """The suite without some data sets, and without the averages that list them; an average
        over a role is over what is left, if that is more than one.

        Raises:
            UsageError: there is no such data set, or none is left.
        """
        left_out: set[str] = set()
        for name in names:
            if not self.names_of(name):
                raise self._unknown(name)
            left_out |= set(self.names_of(name))
        datasets = [dataset for dataset in self.datasets if dataset.name not in left_out]
        if not datasets:
            raise UsageError(f"No data set of {self.name} is left to score.")
        roles = [dataset.role for dataset in datasets]
        averages = {
            name: of
            for name, of in self.averages.items()
            if (not set(of) & left_out if isinstance(of, list) else roles.count(of) > 1)
        }
        known = {*averages, *(dataset.name for dataset in datasets)}
        harmonic = {k: pair for k, pair in self.harmonic_means.items() if known.issuperset(pair)}
        changes = self.changes + [f"without-{name}" for name in names]
        update = {"datasets": datasets, "averages": averages, "harmonic_means": harmonic}
        return self.model_copy(update=update | {"changes": changes})

    def seen_by(self, model: str) -> dict[str, str]:
        """`seen`: what a model has seen of it in pre-training, in a sentence without its full stop;
        nothing for a suite that does not ask."""
        if not self.seen:
            return {}
        said = self.seen.get(model, "what it saw of these data sets is not known")
        return {"seen": f"Pre-training of {model}: {said}"}

    def anchors_for(self, model: str) -> list[tuple[str, str, float, Anchors]]:
        """(data set, metric, its value in %, where that is from) published for a model."""
        protocols = {d.name: d.protocol for d in self.datasets}
        name = _published_name(model)
        return [
            (dataset, metric, value, anchors)
            for anchors in self.anchors
            for dataset, row in anchors.rows(name).items()
            if dataset in protocols
            and anchors.protocols.get(dataset, protocols[dataset]) == protocols[dataset]
            for metric, value in zip(anchors.metrics, row, strict=True)
        ]

    def anchors_elsewhere(self, model: str) -> dict[str, str]:
        """By data set, the protocol of the numbers published for a model, if all are of another
        protocol than the suite's."""
        here = {name for name, *_ in self.anchors_for(model)}
        names = {d.name for d in self.datasets} - here
        return {
            dataset: anchors.protocols[dataset]
            for anchors in self.anchors
            for dataset in anchors.rows(_published_name(model))
            if dataset in names
        }

    def open(self) -> dict[str, dict[Task, Dataset]]:
        """Every data set for every task, by name.

        Raises:
            BrokenInput: what is missing or damaged, all of it in one message.
            MissingDependency, UsageError: nothing but packages or wrong descriptions is in the way.
        """
        opened: dict[str, dict[Task, Dataset]] = {}
        problems: list[str] = []
        errors: list[RadapterError] = []
        missing: dict[str, None] = {}
        for dataset in self.datasets:
            for task in self.tasks:
                module = load(TASKS, task)
                settings = dataset.data.model_copy(update={"task": module.DATA})
                try:
                    found = module.needs(open_data(settings), dataset)
                    opened.setdefault(dataset.name, {})[task] = found
                except RadapterError as error:
                    main = [d for d in missing if dataset.name in self.names_of(d)]
                    if main and dataset.role == "control":
                        continue  # said already of the set that it is a control of
                    errors.append(error)
                    problems.append(f"{dataset.name}: {error}{where_published(dataset)}")
                    missing[dataset.name] = None
        if problems:
            if any(isinstance(error, MissingData) for error in errors):
                problems.append("Put it there, or name the folder above it: --data-root FOLDER")
            if len({n for m in missing for n in self.names_of(m)}) < len(self.datasets):
                options = " ".join(f"--without {name}" for name in missing)
                problems.append(f"To score the rest of the suite, add {options}")
            kinds = (MissingDependency, UsageError)
            of = next((k for k in kinds if all(isinstance(e, k) for e in errors)), BrokenInput)
            raise of(f"Suite {self.name}:\n" + "\n".join(dict.fromkeys(problems)))
        return opened


def _published_name(model: str) -> str:
    """The name without `-quickgelu`, by which open_clip has the same weights twice."""
    return model.replace("-quickgelu:", ":")


def _by_protocol(dataset: SuiteDataset, protocol: str) -> SuiteDataset:
    """A data set with another protocol; UsageError if it has none of that name."""
    try:
        settings = dataset.data.model_dump() | {"protocol": protocol}
        data = type(dataset.data).model_validate(settings)
    except ValidationError as error:
        raise UsageError(
            f"{dataset.name} has no protocol '{protocol}': {error.errors()[0]['msg']}."
        ) from None
    return _with_data(dataset, data)


def _fitted(dataset: SuiteDataset, trained: Data) -> SuiteDataset | None:
    """A data set for a model that was trained on that, None if a part of it does not fit."""
    data = [own.for_model_trained_on(trained) for own in dataset.all_data()]
    found = [own for own in data if own is not None]
    return dataset.with_data(found) if len(found) == len(data) else None


def _rooted(dataset: SuiteDataset, root: str | None) -> SuiteDataset:
    """With a data root where the data set has none."""
    return dataset.with_data(
        [
            own.model_copy(update={"data_root": root}) if own.data_root is None else own
            for own in dataset.all_data()
        ]
    )


def _with_data(dataset: SuiteDataset, data: Data) -> SuiteDataset:
    """A data set by another protocol, with the published counts if they are of that one too."""
    published = dataset.published if data.has_counts_of(dataset.data) else None
    return dataset.model_copy(update={"data": data, "published": published})


def where_published(dataset: SuiteDataset) -> str:
    """The end of a message about a data set that is not there."""
    facts = dataset.published
    if facts is None:
        return ""
    captions = f", {dataset.captions():,} captions" if dataset.captions() else ""
    return (
        f" Published at {facts.where} ({facts.licence}); its folder is {facts.folder}, "
        f"{facts.pictures:,} pictures{captions}."
    )


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
    return validate(Suite, read_file(path), str(path))


def held_out_suite(recipe: Recipe, classes: Sequence[str] | None = None) -> Suite:
    """The held-out pictures of the training distribution, as a suite of one data set.

    Args:
        recipe: of the training.
        classes: that were trained, in their order: what a `validation` section of its own is
            scored among. None: the training data is opened for them.

    Raises:
        UsageError: the recipe has no held-out data.
    """
    settings = recipe.validation_data()
    if settings is None:
        raise UsageError(
            "This needs held-out data of the training distribution: set data.hold_out (such as "
            "0.1) or a `validation` section in the recipe, and train again."
        )
    classify = settings.task == recipe.data.task == "classification"
    if not classify or recipe.validation is None:
        classes = None  # it has those of the training data
    elif classes is None:
        classes = open_data(recipe.data).class_names
    return Suite(
        name="held-out",
        templates=settings.prompts(),
        tasks=[task_for(settings.task)],
        datasets=[
            SuiteDataset(
                name="held-out", role="in-distribution", data=settings,
                classes=None if classes is None else list(classes),
            )
        ],
    )  # fmt: skip


def trained_metric(recipe: Recipe) -> str:
    """What is looked at on held-out data, by validation while training and by `merge --alpha auto`:
    accuracy for a recipe of classes, text-to-image recall for captions."""
    data = recipe.validation_data() or recipe.data
    return main_metrics()[task_for(data.task)]
