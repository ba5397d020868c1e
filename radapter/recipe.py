"""The recipe: what is trained, on what, how. Schema, loading, overrides, errors with their line.

Read with ruamel.yaml (it refuses duplicate keys and reads `5e-4` as a number) and validated by
pydantic with unknown keys refused. All errors are reported at once, each with file, line, column.
This module imports no torch, so the command line can list and check recipes at once.
"""

from __future__ import annotations

import difflib
import io
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML

from radapter.data.opening import DataSource, UnlabelledSource
from radapter.data.settings import BEFORE, Data
from radapter.errors import UsageError
from radapter.recipe_calls import Head, Method, Objective, Term
from radapter.recipe_errors import explain
from radapter.recipe_yaml import override, read_text
from radapter.registry import OF_QUERIES, OPTIMIZERS, SOURCES, Call, Section, schema, section
from radapter.registry import load as registered

S = typing.TypeVar("S", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that is part of file names."""

# ---------------------------------------------------------------- sections


class Optimisation(Call):
    """How the weights are updated: by an optimizer, with a warm-up, then a cosine."""

    name: str
    """The optimizer."""
    lr: Annotated[float, Field(gt=0.0)] = 5e-4
    """The highest learning rate, which the warm-up ends at."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """How many pairs the loss of one step compares, over all devices together."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """How many pictures, and texts, a device encodes at a time. A smaller number takes less memory
    and up to half more time; the gradients stay those of the whole batch (gradient caching, Gao et
    al. 2021). `null`: all at once."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """How many times training goes through all pairs."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Training, and its schedule, end after so many steps, if not sooner. `null`: with the last
    epoch."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate rises linearly to `lr`."""
    final_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """The learning rate that the cosine ends at."""
    add_final_lr: bool = False
    """Add `final_lr` to the whole cosine, so that it starts at `lr + final_lr`. R-Adapter's
    released code does so."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Gradients with a larger norm, over all of them together, are scaled down to this norm.
    `null`: no clipping."""
    stop_after_bad_steps: Annotated[int, Field(ge=1)] = 1
    """Stop after this many steps in a row whose loss or gradients are not finite. If there are
    fewer, these steps change neither the weights nor the average."""

    @model_validator(mode="after")
    def _a_part_of_the_batch(self) -> Optimisation:
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch {self.micro_batch} is larger than batch_size {self.batch_size}: it "
                "is the part of a batch that is encoded at a time"
            )
        return self


if TYPE_CHECKING:
    Optimizer = Optimisation
else:
    Optimizer = section(OPTIMIZERS, "optimizer", Optimisation, "adamw")
ADAMW: Any = schema("adamw", OPTIMIZERS["adamw"], "optimizer", Optimisation, "adamw")


class Checkpoints(Section):
    """What `train --resume` goes on from after an interruption."""

    every_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """Seconds between two checkpoints."""
    keep: Annotated[int, Field(ge=1)] = 2
    """How many of the newest checkpoints are kept."""


class EarlyStop(Section):
    """End training when the validation no longer improves. The learning rate keeps to its plan for
    all epochs, so a run that is stopped early has not annealed."""

    patience: Annotated[int, Field(ge=1)] = 5
    """Stop after this many validations in a row that were not better than the best before them."""


class Monitor(Section):
    """Score the held-out data while training, with the averaged weights merged at `alpha`, by the
    measure of `merge --alpha auto`. The best adapter is kept beside the last one. Training itself
    stays the same. It takes memory for two more copies of the model's weights."""

    every_epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs between two validations. `null`, with `every_steps` too: no validation."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between two validations, instead of `every_epochs`. The last step is scored in any
    case."""
    alpha: float | None = None
    """The alpha that the weights are merged at. `null`: the recipe's."""
    early_stop: EarlyStop | None = None
    """When to end training early. `null`: never."""

    @property
    def wanted(self) -> bool:
        return self.every_epochs is not None or self.every_steps is not None

    @model_validator(mode="after")
    def _one_interval(self) -> Monitor:
        if self.every_epochs is not None and self.every_steps is not None:
            raise ValueError("every_epochs and every_steps both set the interval: give one of them")
        if self.early_stop is not None and not self.wanted:
            raise ValueError("early_stop needs every_epochs or every_steps")
        return self


class GPU(Section):
    """A GPU, by its name and memory."""

    name: str
    """What messages call it, such as `NVIDIA A100`."""
    gigabytes: Annotated[float, Field(gt=0.0)]
    """Its memory in GiB, as its makers state it."""


class Export(Section):
    """How `radapter export` checks what it writes, and how large its batches are."""

    verify: Annotated[int, Field(ge=1)] = 64
    """How many pictures of each data set the exported files are compared with PyTorch on."""
    max_batch: Annotated[int, Field(ge=1)] = 32
    """The largest batch that exported files are run with and that engines are built for."""


class Recipe(Section):
    """What is trained, on what, and how: a YAML file that `radapter train` takes."""

    name: Name
    """The name of the recipe. Its runs begin with it."""
    description: str = ""
    """One line for `radapter recipes`."""
    model: str
    """The model to start from: `NAME:TAG` as open_clip knows it, `hf-hub:OWNER/NAME`, a local
    folder, the built-in `pictogram-clip`, or `NAME:FILE` for a file of weights
    (`NAME:FILE,like=TAG` to say how its pictures are prepared)."""
    method: Method
    """How the model is adapted."""
    head: Head | None = None
    """A classifier that is trained on features of the pictures, from the zero-shot one, by the term
    `cross-entropy`. `null`: none, and classes are told apart by their texts."""
    start: str | None = None
    """A run, by its folder or its name in `runs/`, whose trained weights and head training starts
    from. Alpha 0 stays the base model. `null`: the base model."""
    data: DataSource
    """The pictures and texts to train on."""
    validation: DataSource | None = None
    """Held-out data of the training distribution. `null`: the held-out part of `data`."""
    unlabelled: UnlabelledSource | None = None
    """Pictures without labels that are mixed into each batch, for terms that are of such `rows`.
    `null`: none."""
    objective: Annotated[
        Annotated[Objective, Tag("mpm-nce")]
        | Annotated[list[Term], Field(min_length=1), Tag("terms")],
        Discriminator(lambda tree: "terms" if isinstance(tree, list) else "mpm-nce"),
    ] = Objective()
    """The loss: the settings of `mpm-nce`, with those of `retention` in `retain`; or a list of
    terms, whose weighted sum it is."""
    optimisation: Optimizer = ADAMW()
    """How the weights are updated."""
    checkpoints: Checkpoints = Checkpoints()
    """How often training saves its state."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The precision that the towers compute in. The loss and the normalisation are in fp32 always,
    without TF32. `fp16` scales gradients and leaves out a step in which they overflow."""
    monitor: Monitor = Monitor()
    """Whether the held-out data is scored while training, and how often."""
    trackers: list[Literal["tensorboard"]] = Field(default=[])
    """What metrics are written to beside metrics.jsonl."""
    compile: bool = False
    """Run the towers through torch.compile. The result is the same to rounding; the start takes a
    minute or two, and a C++ compiler (on a GPU triton too)."""
    activation_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again for the gradients. It takes
    less memory and up to half more time; the result is the same."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs. `auto`: on a GPU, if there is one."""
    gpu: GPU | None = None
    """The GPU that batches were chosen for. `train --dry-run` says whether they fit it, on a
    machine without a GPU too; training itself does not read it."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """How many processes read pictures; with 0 the training process does. `auto`: as the number
    of processors suggests. The result is the same."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """What all random numbers follow from: the order of pairs, augmentation, dropping, the start of
    new weights, and the pictures that a source draws."""
    alpha: float = Field(default=0.5, strict=True)
    """How much of the change `radapter merge` keeps where `--alpha` is not given: 0 is the base
    model, 1 the tuned one."""
    suites: list[str] = Field(default=[])
    """The suites that `radapter eval` scores without `--suite`, by name or file. `[]`: the held-out
    data."""
    export: Export = Export()
    """How exported files are checked."""

    @model_validator(mode="before")
    @classmethod
    def _data_follows_the_seed(cls, tree: Any) -> Any:
        """A source's draw has the recipe's seed where it says no other."""
        seed = tree.get("seed") if isinstance(tree, dict) else None
        if type(seed) is not int or seed < 0:
            return tree
        for name in ("data", "unlabelled"):
            data = tree.get(name)
            source = data.get("source") if isinstance(data, dict) else None
            setting = registered(SOURCES, source).seeded if source in list(SOURCES) else None
            if setting is not None:
                tree = {**tree, name: {setting: seed, **data}}
        return tree

    @model_validator(mode="after")
    def _licence_allows_training(self) -> Recipe:
        for data in (self.data, self.unlabelled):
            if data is not None and data.no_training:
                raise ValueError(data.no_training)
        return self

    @model_validator(mode="after")
    def _there_is_something_to_monitor(self) -> Recipe:
        if self.monitor.wanted and self.validation_data() is None:
            raise ValueError(
                "monitor needs held-out data: set data.hold_out (such as 0.1) or `validation`"
            )
        if self.monitor.wanted and self.method.name in OF_QUERIES:
            raise ValueError(
                f"method {self.method.name} changes no feature of pictures and texts, so the score "
                "that monitor watches would stay the same: leave monitor out"
            )
        return self

    @model_validator(mode="after")
    def _batches_can_be_mixed(self) -> Recipe:
        if self.unlabelled is None:
            return self
        labelled, more = self.in_a_batch()
        if labelled < 2 or more < 1:
            raise ValueError(
                f"unlabelled.share {self.unlabelled.share} of optimisation.batch_size "
                f"{self.optimisation.batch_size} leaves {labelled} labelled and {more} unlabelled "
                "pictures in a batch: it needs two and one at least"
            )
        if (self.unlabelled.augmentation is None) != (self.data.augmentation is None):
            raise ValueError(
                "data.augmentation and unlabelled.augmentation have to be null both, or neither"
            )
        return self

    def in_a_batch(self) -> tuple[int, int]:
        """How many labelled and how many unlabelled pictures a batch has, if there are as many."""
        size = self.optimisation.batch_size
        more = 0 if self.unlabelled is None else round(size * self.unlabelled.share)
        return size - more, more

    def terms(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of each term of the objective."""
        if isinstance(self.objective, list):
            return [(term.name, term.arguments()) for term in self.objective]
        arguments = dict(self.objective)
        name, retain = arguments.pop("name"), arguments.pop("retain")
        return [(name, arguments), *([("retention", dict(retain))] if retain else [])]

    def places(self) -> list[str]:
        """Where each of them is in the recipe, for messages."""
        if isinstance(self.objective, list):
            return [f"objective.{number}" for number in range(len(self.objective))]
        return ["objective", "objective.retain"][: len(self.terms())]

    @property
    def mix_captions(self) -> float:
        """The share of class prompts that a term wants replaced by a caption."""
        return max(arguments.get("mix_captions", 0.0) for _, arguments in self.terms())

    def validation_data(self) -> Data | None:
        """Held-out pictures of the training distribution, without augmentation, or None."""
        if self.validation is not None:
            return self.validation
        return self.data.held_out()


# ---------------------------------------------------------------- loading


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML file, with `key.sub=value` overrides.

    Raises:
        UsageError: the file is missing, empty, no YAML or against the schema; the message has
            a line for every error, with file, line and column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"Recipe not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return parse(text, str(path), overrides)


def parse(text: str, name: str = "recipe", overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML text; `name` stands in error messages for the file. See `load`."""
    return validate(Recipe, read_text(text, name), name, overrides)


def validate(
    schema: type[S], tree: Any, name: str, overrides: list[str] | tuple[str, ...] = ()
) -> S:
    """Check a tree read by `recipe_yaml` against a schema, all errors at once with their lines."""
    overridden = {override(tree, item) for item in overrides}
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problems = [explain(schema, tree, name, overridden, e) for e in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(problems))) from None


def as_trained(recipe: Recipe) -> Recipe:
    """The recipe of a run. Settings that a recipe of an older version lacks get that version's
    behaviour: the same pictures are held out, and read alike."""
    update = {}
    for name in ("data", "validation"):
        data = getattr(recipe, name)
        before = {key: how for key, how in BEFORE.items() if data and hasattr(data, key)}
        unsaid = {key: how for key, how in before.items() if key not in data.model_fields_set}
        if unsaid:
            update[name] = data.model_copy(update=unsaid)
    return recipe.model_copy(update=update) if update else recipe


def rooted(recipe: Recipe) -> Recipe:
    """The recipe for a later process, without this one's data root and in any folder: see
    `Data.settled`."""
    sections = {n: getattr(recipe, n) for n in ("data", "validation", "unlabelled")}
    settled = {name: data.settled() for name, data in sections.items() if data is not None}
    return recipe.model_copy(update=settled)


def dump(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `parse` reads back to an equal one."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


# ---------------------------------------------------------------- shipped recipes


def shipped(kind: str = "recipes") -> dict[str, Path]:
    """The recipes that come with radapter, by name: `emoji`, `pretrain/pictogram-clip`, ...; or the
    files of another folder that ships, such as `studies`."""
    inside = Path(__file__).parent / kind  # in an installed wheel
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / kind
    found = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def locate(recipe: str) -> Path:
    """The file that a command-line argument means: a path, or the name of a shipped recipe."""
    path = Path(recipe)
    if path.is_file():
        return path
    known = shipped()
    name = recipe.removeprefix("recipes/").removesuffix(".yaml")
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise UsageError(f"Recipe not found: {recipe}.{hint} `radapter recipes` lists what ships.")
