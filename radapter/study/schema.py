"""The study file: which methods are compared, by which trials and seeds, and what decides.

Imports no torch, so that studies can be listed, checked and tabulated at once.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from radapter import recipe as recipes
from radapter.errors import UsageError, nearest
from radapter.evaluation.scores import MetricName, headlines, metric_of
from radapter.recipe import Name, validate
from radapter.recipe_yaml import read_file
from radapter.registry import Section

Overrides = list[str] | dict[str, Any]
"""`[optimisation.lr=1e-3]` or `{optimisation.lr: 1e-3}`"""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[list[Seed], Field(min_length=1)]
Alpha = Annotated[float, Field(ge=0.0, le=1.0)]
APART = 1000
"""Between the seeds of a soup's runs"""
STAGES = ("trials", "finalists")
MERGE_SETTINGS = {
    "tpgm": ("norm", "steps"), "per-tower": (), "dawin": ("clusters",), "vrf": ("distance",)
}  # fmt: skip
HELD_OUT = (
    "settings are chosen on held-out data of the training distribution alone. A method that was "
    "chosen on a shift is no longer tested by it. Write `on: held-out`, and name shifts in `suites`"
)


class Choice(Section):
    """How the setting of each method is chosen among its trials, and alpha of each run."""

    metric: MetricName | Annotated[list[MetricName], Field(min_length=1)] | None = None
    """The measure, or several whose mean it is, at the alpha of the method. `null`: that of
    `merge --alpha auto`, which is accuracy for classes and caption to picture recall for
    captions."""
    on: Literal["held-out"] = "held-out"
    """What it is measured on: held-out data of the training distribution, `validation` of the
    recipe or the held-out part of `data`. Nothing else can be named here."""

    @field_validator("on", mode="before")
    @classmethod
    def _never_on_a_shift(cls, on: Any) -> Any:
        if on != "held-out":
            raise ValueError(HELD_OUT)
        return on

    @field_validator("metric")
    @classmethod
    def _larger_is_better(cls, metric: Any) -> Any:
        for name in [metric] if isinstance(metric, str) else metric or ():
            if metric_of(name).better != "larger":
                raise ValueError(f"of {name} smaller is better: name one of which larger is")
        return metric

    def metrics(self, trained: str) -> list[str]:
        """Those whose mean decides."""
        if self.metric is None:
            return [trained]
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)


class Stage(Section):
    """The runs of each method in one stage of a study."""

    seeds: Seeds
    """A run for each. Of the finalists, the place of a seed in this list says its fold."""

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice: its runs would be the same")
        return seeds


class Soup(Section):
    """Several runs of another method, averaged as by `radapter soup`."""

    of: str
    """The method. Its chosen setting is trained several times."""
    rule: Literal["uniform", "greedy", "model-stock"] = "uniform"
    """How they are averaged."""
    members: Annotated[int, Field(ge=2)] = 2
    """How many runs: for seed s of the finalists those of seeds s, s + 1000, s + 2000, ..., so that
    no two soups have a run in common."""

    def seeds(self, seed: int) -> list[int]:
        return [seed + APART * number for number in range(self.members)]


class Merge(Section):
    """A run of another method, merged by a rule that learns on held-out data, as by
    `radapter merge --rule`."""

    of: str
    """The method. Its runs are merged; nothing more is trained."""
    rule: Literal["tpgm", "per-tower", "dawin", "vrf"]
    """`tpgm`: how far each tensor goes. `per-tower`: an alpha for the image tower and one for all
    else, as by `radapter merge --alpha auto-per-tower`. `dawin`, `vrf`: the zero-shot and the tuned
    model together, mixed per picture, which costs both of them at inference."""
    settings: dict[str, Any] = Field(default={})
    """Of the rule, such as `{norm: l2}` of tpgm, `{clusters: 3}` of dawin, `{distance: euclidean}`
    of vrf. DaWin's clusters are fitted on held-out pictures: the released form, which fits them on
    the test pictures, has no place among methods that have not seen these."""

    def smallest(self) -> Merge:
        """In as few steps as can be, where it takes any."""
        few = {"steps": 1} if "steps" in MERGE_SETTINGS[self.rule] else {}
        return self.model_copy(update={"settings": self.settings | few})

    @model_validator(mode="after")
    def _settings_are_of_the_rule(self) -> Merge:
        for key in self.settings:
            if key not in MERGE_SETTINGS[self.rule]:
                own = ", ".join(MERGE_SETTINGS[self.rule]) or "none"
                raise ValueError(f"{self.rule} has no setting '{key}': it has {own}")
        return self


class StudyMethod(Section):
    """One row of the table: a recipe with changes, the settings that are tried, and alpha."""

    recipe: str | None = None
    """A shipped recipe or a file. `null`: the study's."""
    set: Overrides = Field(default=[])
    """Changes to it: `[optimisation.epochs=5]`, or `{method: {name: lora, rank: 8}}`."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """Values that are tried for each key, all combinations: `{optimisation.lr: [1e-4, 3e-4]}`."""
    trials: Annotated[list[Overrides], Field(min_length=1)] | None = None
    """Instead of `grid`, a list of changes to try, each like `set`."""
    start: str | None = None
    """Another method of the study, whose chosen setting training starts from, in the run of the
    same seed and fold: LP-FT starts from a linear probe. `null`: the base model."""
    soup: Soup | None = None
    """Nothing is trained but the runs of another method, which are averaged. `null`: a method that
    is trained."""
    merge: Merge | None = None
    """Nothing is trained: each run of another method is merged by a rule of its own. `null`: by
    alpha."""
    shows: dict[MetricName, MetricName] = Field(default={})
    """Measures that this row has from others of its model: with `{query_r1: text_alone_r1}` the row
    of the zero-shot model is that of the text alone, beside methods that make queries of their
    own."""
    alpha: Literal["auto"] | Alpha = "auto"
    """How much of the training is kept. `auto`: as `merge --alpha auto` takes it in each run, on
    held-out data. A number is the same for all runs. 0 is the zero-shot model: nothing is
    trained."""

    @property
    def zero_shot(self) -> bool:
        return self.alpha == 0

    @property
    def has_trials(self) -> bool:
        return not self.zero_shot and self.soup is None and self.merge is None

    @property
    def rests_on(self) -> str | None:
        """The method whose runs this one needs."""
        made_of = self.soup or self.merge
        return made_of.of if made_of else self.start

    def settings(self) -> list[list[str]]:
        """The changes of each trial."""
        if not self.has_trials:
            return []
        if self.trials is not None:
            return [changes(trial) for trial in self.trials]
        keys = list(self.grid)
        return [
            changes(dict(zip(keys, values, strict=True)))
            for values in itertools.product(*self.grid.values())
        ]

    @model_validator(mode="after")
    def _one_list_of_trials(self) -> StudyMethod:
        if self.grid and self.trials is not None:
            raise ValueError("grid and trials both say what is tried: give one of them")
        if self.zero_shot and (self.grid or self.trials is not None or self.rests_on):
            raise ValueError("alpha 0 is the zero-shot model, of which nothing can be tried")
        own = self.recipe or self.set or self.grid or self.trials is not None or self.start
        if self.soup is not None and own:
            raise ValueError(f"a soup is what {self.soup.of} is: it takes `soup` and `alpha` alone")
        if self.merge is not None and (own or self.soup is not None):
            raise ValueError(
                f"what is merged is what {self.merge.of} is: it takes `merge` and `alpha` alone"
            )
        if self.merge is not None and self.alpha != 1:
            raise ValueError(
                f"{self.merge.rule} decides itself how much of the training is kept: write alpha: 1"
            )
        return self


class Study(Section):
    """Methods, the settings tried for each, and what they are compared on: a YAML file that
    `radapter study` takes."""

    name: Name
    """The name of the study. The folder of its results is called by it."""
    description: str = ""
    """One line, above the table."""
    recipe: str | None = None
    """A shipped recipe or a file, for methods that name none."""
    set: Overrides = Field(default=[])
    """Changes to the recipes of all methods, before their own."""
    baseline: str
    """The method that differences are from."""
    methods: Annotated[dict[str, StudyMethod], Field(min_length=1)]
    """What is compared, by the label that tables have."""
    choose: Choice = Choice()
    """What decides among the trials of a method."""
    trials: Stage = Stage(seeds=[0])
    """The first stage: every setting of every method is trained with these seeds, on the first
    fold. Methods with one setting have nothing to try."""
    finalists: Stage = Stage(seeds=[0, 1, 2, 3, 4])
    """The second stage: the chosen setting of each method is trained with these seeds and scored on
    the suites."""
    folds: list[Overrides] = Field(default=[])
    """Changes to the data, a fold each: `[[data.fold=0], [data.fold=1]]`. Seed number i of the
    finalists is on fold number i, and after the last fold the first comes again. `[]`: all are on
    the recipe's own data."""
    suites: Annotated[list[str], Field(min_length=1)]
    """What finalists are scored on, by name or file. No trial is."""
    metrics: list[MetricName] = Field(default=[])
    """What the table compares. `[]`: the measure of `merge --alpha auto`."""
    compare: list[str] = Field(default=[])
    """The data sets, roles and averages of the suites whose differences are compared; the table
    shows the others without. `[]`: all of them. Fewer comparisons make Holm's correction smaller;
    name them before looking."""
    alphas: list[Alpha] = Field(default=[0.0, 0.25, 0.5, 0.75, 1.0])
    """Where finalists are scored for their curves, beside their own alpha."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """What scores are computed in. `bf16` takes half of the time where the processor has it; a
    picture in some hundreds then gets another answer, of every method alike. A CPU without bf16
    computes them in fp32."""
    unequal_trials: str | None = None
    """Why some methods have more trials than others. It stands below the table. `null`: all have
    the same number."""

    @field_validator("metrics")
    @classmethod
    def _tables_have_room(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in headlines():
                raise ValueError(f"{name} is in no table: name one of {', '.join(headlines())}")
        return names

    @model_validator(mode="after")
    def _baseline_is_a_method(self) -> Study:
        if self.baseline not in self.methods:
            known = nearest(self.baseline, list(self.methods))
            raise ValueError(f"baseline '{self.baseline}' is not one of the methods.{known}")
        for label, own in self.methods.items():
            if not (own.recipe or self.recipe or own.soup or own.merge):
                raise ValueError(f"method '{label}' has no recipe: name one there or in `recipe`")
        return self

    @model_validator(mode="after")
    def _rows_show_what_tables_have(self) -> Study:
        for label, own in self.methods.items():
            if unknown := [other for other in own.shows.values() if other not in headlines()]:
                raise ValueError(f"method '{label}' shows {unknown[0]}, which is in no table")
            for name in own.shows:
                if name not in self.metrics:
                    known = nearest(name, list(self.metrics))
                    raise ValueError(f"method '{label}' shows '{name}', not in `metrics`.{known}")
        return self

    @model_validator(mode="after")
    def _methods_rest_on_others(self) -> Study:
        for label in self.methods:
            seen = [label]
            while (other := self.methods[seen[-1]].rests_on) is not None:
                if other not in self.methods:
                    known = nearest(other, list(self.methods))
                    raise ValueError(f"method '{label}' rests on '{other}', which is none.{known}")
                if other in seen or not self.methods[other].has_trials:
                    raise ValueError(
                        f"method '{label}' rests on '{other}', which has no trials of its own"
                    )
                seen.append(other)
        return self

    @model_validator(mode="after")
    def _as_many_trials_for_each(self) -> Study:
        counts = {
            label: len(own.settings()) for label, own in self.methods.items() if own.has_trials
        }
        if len(set(counts.values())) > 1 and not self.unequal_trials:
            said = ", ".join(f"{label} {count}" for label, count in counts.items())
            raise ValueError(
                f"methods have different numbers of trials ({said}). The best of more trials is "
                "better by chance alone: give each as many, or say why in `unequal_trials`"
            )
        return self

    def smallest(self) -> Study:
        """The study with one trial and one seed: to try that all works."""
        methods = {
            label: own.model_copy(
                update={
                    "grid": {},
                    "trials": own.settings()[:1] or None,
                    "merge": own.merge and own.merge.smallest(),
                }
            )
            for label, own in self.methods.items()
        }
        stages = {stage: Stage(seeds=getattr(self, stage).seeds[:1]) for stage in STAGES}
        return self.model_copy(
            update={"methods": methods, "alphas": [1.0], "compare": [], **stages}
        )

    def overrides(self, label: str, own: Sequence[str], seed: int, fold: int = 0) -> list[str]:
        """All changes to the recipe of a method, in their order."""
        of_fold = changes(self.folds[fold]) if self.folds else []
        method = self.methods[label]
        return [*changes(self.set), *changes(method.set), *of_fold, *own, f"seed={seed}"]

    def levels(self) -> list[list[str]]:
        """The methods in an order in which each comes behind what it rests on."""
        done: list[str] = []
        levels: list[list[str]] = []
        while len(done) < len(self.methods):
            ready = [
                label
                for label, own in self.methods.items()
                if label not in done and (own.rests_on is None or own.rests_on in done)
            ]
            levels.append(ready)
            done += ready
        return levels

    def places(self) -> list[tuple[int, int]]:
        """(fold, seed) of each run of a finalist."""
        count = max(1, len(self.folds))
        return [(place % count, seed) for place, seed in enumerate(self.finalists.seeds)]


def changes(given: Overrides) -> list[str]:
    """As `key=value`."""
    if isinstance(given, Mapping):
        return [f"{key}={_text(value)}" for key, value in given.items()]
    return list(given)


def _text(value: Any) -> str:
    if isinstance(value, float) and not isinstance(value, bool) and math.isfinite(value):
        return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
    return json.dumps(value)


# ---------------------------------------------------------------- files


def shipped_studies() -> dict[str, Path]:
    """The studies that come with radapter, by name."""
    return recipes.shipped("studies")


def locate(study: str) -> Path:
    """The file that a command-line argument means: a path, or the name of a shipped study.

    Raises:
        UsageError: there is none.
    """
    known = shipped_studies()
    name = study.removeprefix("studies/").removesuffix(".yaml")
    if Path(study).is_file():
        return Path(study)
    if name in known:
        return known[name]
    raise UsageError(f"Study not found: {study}.{nearest(name, list(known))}")


def load(path: str | Path) -> Study:
    """The study in a YAML file.

    Raises:
        UsageError: it is missing, no YAML or against the schema; the message has a line for every
            error, with file, line and column.
    """
    return validate(Study, read_file(path), str(path))
