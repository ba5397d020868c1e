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
    create_model,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from radapter.data.opening import DataSource
from radapter.data.settings import BEFORE, Data
from radapter.errors import UsageError
from radapter.recipe_errors import explain
from radapter.registry import (
    METHODS,
    SOURCES,
    TERMS,
    Call,
    Momentum,
    Section,
    arguments,
    section,
)
from radapter.registry import load as registered

S = typing.TypeVar("S", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that is part of file names."""


if TYPE_CHECKING:
    Method = Call
    Term = Call
    Objective = Section
else:
    Method, Term = section(METHODS, "attach"), section(TERMS, "term")
    Retain = create_model(
        "Retain", __base__=Section, __module__=__name__, **arguments(TERMS["retention"], "term")
    )
    Objective = create_model(
        "Objective",
        __base__=Section,
        __module__=__name__,
        name=(Literal["mpm-nce"], "mpm-nce"),
        **arguments(TERMS["mpm-nce"], "term"),
        retain=(Retain | None, None),
    )
    """The short form of an objective: one term, with retention as a second one beside it"""

# ---------------------------------------------------------------- sections


class Optimisation(Section):
    lr: Annotated[float, Field(gt=0.0)] = 5e-4
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Pairs that one step's loss compares, over all devices."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Pictures, and texts, that a device encodes at a time: less memory, up to half more time,
    the gradients of the whole batch (gradient caching, Gao et al. 2021). None: all at once."""
    epochs: Annotated[int, Field(ge=1)] = 10
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """Learning rate that the cosine ends at."""
    add_final_lr: bool = False
    """Add `final_lr` to the whole cosine, which then starts at their sum, as R-Adapter's released
    code does."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    stop_after_bad_steps: Annotated[int, Field(ge=1)] = 1
    """Stop at so many steps in a row whose loss or gradients are not finite; fewer are left out,
    of the weights and of the average."""

    @model_validator(mode="after")
    def _a_part_of_the_batch(self) -> Optimisation:
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch {self.micro_batch} is larger than batch_size {self.batch_size}: it "
                "is the part of a batch that is encoded at a time"
            )
        return self


class Checkpoints(Section):
    every_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    keep: Annotated[int, Field(ge=1)] = 2


class EarlyStop(Section):
    """Stop once this many validations in a row were not better than the best before them. The
    learning rate keeps to its plan for all epochs, so a run stopped early has not annealed."""

    patience: Annotated[int, Field(ge=1)] = 5


class Monitor(Section):
    """Score the held-out data while training, with the averaged weights merged at `alpha`, by the
    measure of `merge --alpha auto`; the best adapter is kept beside the last one. Training itself
    is the same with and without it. It takes memory for two more copies of the model's weights."""

    every_epochs: Annotated[int, Field(ge=1)] | None = None
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Either of the two; the last step is scored in any case. None: no validation."""
    alpha: float | None = None
    """None: the recipe's."""
    early_stop: EarlyStop | None = None

    @property
    def wanted(self) -> bool:
        return self.every_epochs is not None or self.every_steps is not None

    @model_validator(mode="after")
    def _one_interval(self) -> Monitor:
        if self.every_epochs is not None and self.every_steps is not None:
            raise ValueError("every_epochs and every_steps are two ways to say one thing: name one")
        if self.early_stop is not None and not self.wanted:
            raise ValueError("early_stop needs every_epochs or every_steps")
        return self


class GPU(Section):
    name: str
    gigabytes: Annotated[float, Field(gt=0.0)]
    """Its memory, as its makers count it (GiB)"""


class Export(Section):
    verify: Annotated[int, Field(ge=1)] = 64
    """Pictures of each data set on which exported files are compared with PyTorch."""
    max_batch: Annotated[int, Field(ge=1)] = 32
    """The largest batch that exported files are run with, and that engines are built for."""


class Recipe(Section):
    name: Name
    description: str = ""
    model: str
    """`NAME:TAG` as open_clip knows them, `hf-hub:OWNER/NAME`, a local folder, `emoji-clip`, or
    `NAME:FILE` for a file of weights (`NAME:FILE,like=TAG` where their use has to be said)."""
    method: Method
    data: DataSource
    validation: DataSource | None = None
    """Held-out data of the training distribution; if absent, the held-out part of `data`."""
    objective: Annotated[
        Annotated[Objective, Tag("mpm-nce")]
        | Annotated[list[Term], Field(min_length=1), Tag("terms")],
        Discriminator(lambda tree: "terms" if isinstance(tree, list) else "mpm-nce"),
    ] = Objective()
    """A list of terms, whose sum is the loss; or the settings of `mpm-nce`, with those of
    `retention` in `retain`."""
    optimisation: Optimisation = Optimisation()
    checkpoints: Checkpoints = Checkpoints()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the towers compute in; the loss and the normalisation are in fp32 always, and that is
    without TF32. `fp16` scales gradients, and leaves out a step in which they overflow."""
    monitor: Monitor = Monitor()
    trackers: list[Literal["tensorboard"]] = Field(default=[])
    """What metrics go to beside metrics.jsonl."""
    compile: bool = False
    """Run the towers through torch.compile: the same to rounding. It takes a minute or two to
    begin, and a C++ compiler (on a GPU triton too)."""
    activation_checkpointing: bool = False
    """Keep the input of each block alone and compute the rest again for the gradients: much less
    memory, about a third more time, the same result."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu: GPU | None = None
    """What batches and micro batches were chosen for: `train --dry-run` says whether they fit, on a
    machine without a GPU, too. Training itself asks nothing of it."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Processes that read pictures; 0 reads them in the training process; `auto` is by the
    processors at hand. The result is the same."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    alpha: float = Field(default=0.5, strict=True)
    suites: list[str] = Field(default=[])
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _data_follows_the_seed(cls, tree: Any) -> Any:
        """A source's draw has the recipe's seed where it says no other."""
        if not isinstance(tree, dict):
            return tree
        data, seed = tree.get("data"), tree.get("seed")
        if not isinstance(data, dict) or type(seed) is not int or seed < 0:
            return tree
        source = data.get("source")
        setting = registered(SOURCES, source).seeded if source in list(SOURCES) else None
        return tree if setting is None else {**tree, "data": {setting: seed, **data}}

    @model_validator(mode="after")
    def _licence_allows_training(self) -> Recipe:
        if self.data.no_training:
            raise ValueError(self.data.no_training)
        return self

    @model_validator(mode="after")
    def _there_is_something_to_monitor(self) -> Recipe:
        if self.monitor.wanted and self.validation_data() is None:
            raise ValueError(
                "monitor needs held-out data: set data.hold_out (such as 0.1) or `validation`"
            )
        return self

    def terms(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of each term of the objective."""
        if isinstance(self.objective, list):
            return [(term.name, term.arguments()) for term in self.objective]
        arguments = dict(self.objective)
        name, retain = arguments.pop("name"), arguments.pop("retain")
        return [(name, arguments), *([("retention", dict(retain))] if retain else [])]

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
        raise UsageError(f"Recipe cannot be read: {path}: {error}") from None
    return parse(text, str(path), overrides)


def parse(text: str, name: str = "recipe", overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML text; `name` stands in error messages for the file. See `load`."""
    return validate(Recipe, _read_yaml(text, name), name, overrides)


def validate(
    schema: type[S], tree: Any, name: str, overrides: list[str] | tuple[str, ...] = ()
) -> S:
    """Check a tree read by `read_yaml` against a schema, all errors at once with their lines."""
    overridden = {_override(tree, item) for item in overrides}
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problems = [explain(schema, tree, name, overridden, e) for e in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(problems))) from None


def read_yaml(path: str | Path) -> Any:
    """The tree of a YAML file, with positions, for `validate`."""
    try:
        return _read_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot be read: {path}: {error}") from None


def as_trained(recipe: Recipe) -> Recipe:
    """The recipe in a run's folder, with what it does not say, being of an older version, as that
    version did it: the same pictures are held out, and read alike."""
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
    sections = {"data": recipe.data, "validation": recipe.validation}
    settled = {name: data.settled() for name, data in sections.items() if data is not None}
    return recipe.model_copy(update=settled)


def dump(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `parse` reads back to an equal one."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def _read_yaml(text: str, name: str) -> Any:
    try:
        tree = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise UsageError(f"{where}: {problem}") from None
    except Exception as error:  # ruamel raises plain ValueErrors for some malformed scalars
        raise UsageError(f"{name}: not valid YAML: {error}") from None
    if tree is None:
        raise UsageError(f"{name}: the file is empty")
    if not isinstance(tree, dict):
        found = "a list" if isinstance(tree, list) else "a single value"
        raise UsageError(f"{name}:1:1: expected `key: value` lines, found {found}")
    return tree


def _override(tree: dict[str, Any], item: str) -> tuple[str, ...]:
    """Set `key.sub=value` in the tree; returns the path that was set."""
    key, equals, value = item.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise UsageError(f"override '{item}': expected key.sub=value, such as optimisation.lr=1e-3")
    node: Any = tree
    for part in keys[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise UsageError(f"override '{item}': '{part}' is a value, not a section")
    try:
        node[keys[-1]] = YAML(typ="safe").load(value)
    except Exception:
        raise UsageError(f"override '{item}': the value is not valid YAML") from None
    return keys


# ---------------------------------------------------------------- shipped recipes


def shipped() -> dict[str, Path]:
    """The recipes that come with radapter, by name: `emoji`, `pretrain/emoji-clip`, ..."""
    inside = Path(__file__).parent / "recipes"  # in an installed wheel
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / "recipes"
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
