"""Every name that a recipe may call, and the sections of a recipe that are such calls.

A table leads from a name to a module, which is imported when it is used. A section `{name: X, ...}`
calls a function of that module: the keyword-only arguments of its signature are the section's keys,
with their types and defaults, and its docstring describes them. They are read from the module's
source, so that checking a recipe imports no torch. What a type is made of is therefore a name of
this module.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

METHODS = {
    "r-adapter": "radapter.methods.r_adapter",
    "full": "radapter.methods.full",
    "lora": "radapter.methods.lora",
    "uniadapter": "radapter.methods.uniadapter",
    "multiway": "radapter.methods.multiway",
    "mv-adapter": "radapter.methods.mv_adapter",
    "stan": "radapter.methods.stan",
    "gru": "radapter.methods.gru",
    "ucdr-prompts": "radapter.methods.ucdr_prompts",
    "ucdr-adapter": "radapter.methods.ucdr_adapter",
    "inversion": "radapter.methods.inversion",
    "mota": "radapter.methods.mota",
    "frozen": "radapter.methods.frozen",
}
"""Ways of adapting a model: `attach`, and `merge` where what is trained folds into the weights"""
OF_QUERIES = ("inversion", "mota")
"""Methods that train what makes queries of pictures and texts; features stay as they are"""
SOURCES = {
    "emoji": "radapter.data.sources.emoji:EmojiData",
    "icons": "radapter.data.sources.icons:IconsData",
    "folder": "radapter.data.sources.folder:FolderData",
    "table": "radapter.data.sources.table:TableData",
    "caption-files": "radapter.data.sources.caption_files:CaptionFilesData",
    "shards": "radapter.data.sources.shards:ShardsData",
    "clip-benchmark": "radapter.data.sources.clip_benchmark:ClipBenchmarkData",
    "karpathy": "radapter.data.sources.karpathy:KarpathyData",
    "coco-captions": "radapter.data.sources.coco_captions:CocoCaptionsData",
    "huggingface": "radapter.data.sources.huggingface:HuggingFaceData",
    "imagenet": "radapter.data.sources.imagenet:ImageNetData",
    "objectnet": "radapter.data.sources.objectnet:ObjectNetData",
    "coop": "radapter.data.sources.coop:CoopData",
    "drawings": "radapter.data.sources.drawings:DrawingsData",
    "masks": "radapter.data.sources.masks:MasksData",
    "scenes": "radapter.data.sources.scenes:ScenesData",
    "regions": "radapter.data.sources.regions:RegionsData",
    "domains": "radapter.data.sources.domains:DomainsData",
    "videos": "radapter.data.sources.videos:VideosData",
    "video-sets": "radapter.data.sources.video_sets:VideoSetsData",
    "emoji-video": "radapter.data.sources.emoji_video:EmojiVideoData",
    "moving-emoji": "radapter.data.sources.moving_emoji:MovingEmojiData",
    "cirr": "radapter.data.sources.cirr:CirrData",
    "circo": "radapter.data.sources.circo:CircoData",
    "fashioniq": "radapter.data.sources.fashioniq:FashionIQData",
    "genecis": "radapter.data.sources.genecis:GenecisData",
    "triplets": "radapter.data.sources.triplets:TripletsData",
    "emoji-edits": "radapter.data.sources.emoji_edits:EmojiEditsData",
}
"""Sources of data: the section's class, whose `open` gives the data set"""

TERMS = {
    "mpm-nce": "radapter.objectives.contrastive",
    "retention": "radapter.objectives.retention",
    "l2-sp": "radapter.objectives.l2_sp",
    "car-ft": "radapter.objectives.car_ft",
    "lipsum-ft": "radapter.objectives.lipsum",
    "fd-align": "radapter.objectives.fd_align",
    "self-distillation": "radapter.objectives.self_distillation",
    "momentum-queue": "radapter.objectives.momentum_queue",
    "image-text-matching": "radapter.objectives.image_text_matching",
    "orthogonality": "radapter.objectives.orthogonality",
    "in-batch-distillation": "radapter.objectives.in_batch_distillation",
    "cross-entropy": "radapter.objectives.cross_entropy",
    "class-texts": "radapter.objectives.class_texts",
    "triplet": "radapter.objectives.triplet",
    "supervised-contrast": "radapter.objectives.supervised_contrast",
    "lincir": "radapter.objectives.lincir",
    "entropy-contrast": "radapter.objectives.entropy_contrast",
}
"""Addends of the loss: `term`"""

OPTIMIZERS = {
    "adamw": "radapter.optimizers.adamw",
    "spd": "radapter.optimizers.spd",
    "ftp": "radapter.optimizers.ftp",
    "muon": "radapter.optimizers.muon",
}
"""How weights are updated: `optimizer`"""

RULES = {
    "uniform": "radapter.merging.uniform",
    "greedy": "radapter.merging.greedy",
    "model-stock": "radapter.merging.model_stock",
    "tpgm": "radapter.merging.tpgm",
}
"""Merging rules: `combine` makes one model of several runs, `project` one of base and run"""

HEADS = {
    "linear": "radapter.heads.linear",
    "clip-adapter": "radapter.heads.clip_adapter",
    "tip-adapter": "radapter.heads.tip_adapter",
    "tip-adapter-f": "radapter.heads.tip_adapter_f",
    "xmadapter": "radapter.heads.xmadapter",
}
"""Trained heads: `head`, `of`, `at_zero`, and `search` where something is searched"""

GATES = {
    "dawin": "radapter.heads.dawin",
    "vrf": "radapter.heads.vrf",
}
"""Heads over the zero-shot and the tuned model, which `merge --rule` fits: `fit`, and `of`"""

TASKS = {
    "classification": "radapter.evaluation.tasks.classification",
    "retrieval": "radapter.evaluation.tasks.retrieval",
    "segmentation": "radapter.evaluation.tasks.segmentation",
    "picture-retrieval": "radapter.evaluation.tasks.picture_retrieval",
    "top-5": "radapter.evaluation.tasks.top_five",
    "motion": "radapter.evaluation.tasks.motion",
    "composed": "radapter.evaluation.tasks.composed",
}
"""What suites score: METRICS, DATA, `needs`, `asks`, `protocol` and `score`"""


class Section(BaseModel):
    """A mapping in a recipe or suite; its keys are the fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Call(Section):
    """A section that calls what is registered as `name`, with the other keys as its arguments."""

    name: str
    calls: ClassVar[tuple[Any, ...]]
    """What `schema` makes it of"""

    def __reduce__(self) -> Any:  # pickle looks for classes in modules, where these are not
        return _blank, self.calls, self.__getstate__()

    def arguments(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in arguments(*self.calls[1:3])}


# ---------------------------------------------------------------- the types of arguments

Towers = Literal["both", "image", "text"]
Count = Annotated[int, Field(ge=1)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]
Rows = Literal["labelled", "unlabelled", "all"]
"""Which pictures of a batch a term is of"""


class Average(Section):
    """Exponential moving average of what is trained: `mean <- m * mean + (1 - m) * value`."""

    momentum: Momentum = 0.999
    """The m of this formula. 0: there is no average, and the last values are kept."""
    warmup: bool = False
    """Use `min(m, (1 + t) / (10 + t))` in update t, so that a short run forgets the start of the
    average."""
    every: Count = 1
    """Steps from one update to the next; the first follows the first step."""
    rise: Unit = 0.0
    """The share of training in which m rises linearly from `first` to `momentum`. 0: it is the same
    throughout."""
    first: Momentum = 0.0
    """The m that the rise begins with."""
    keep: Literal["average", "last"] = "average"
    """What a run keeps. `average`: the average. `last`: the last values, beside which the average
    is only the teacher of terms such as `self-distillation` and `momentum-queue`."""


class AdapterAverage(Average):
    """Exponential moving average of adapters: `mean <- m * mean + (1 - m) * value`."""

    of: Literal["effective", "factors"] = "effective"
    """`effective`: the average of s·W (low rank: s·U·D), as the paper's formula has it. `factors`:
    of s, U and D each by itself, as the authors' released code does. The product of averages is
    another matrix than the average of products, but it keeps a low-rank adapter low rank on
    disk."""


# ---------------------------------------------------------------- from a name to what it calls


def load(table: Mapping[str, str], name: str) -> Any:
    """What is registered under a name: a module, or for `module:name` that name in it."""
    module, _, member = table[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, member) if member else loaded


@functools.cache
def schema(
    name: str, module: str, function: str, base: type[Call] = Call, default: str | None = None
) -> type[Call]:
    """The section that calls `function` of `module`, which is not imported.

    Args:
        base: a section whose keys it has too.
        default: the name of the section that needs not say its name.
    """
    called = name if name == default else ...
    keys = {"name": (Literal[name], called), **arguments(module, function)}
    section: type[Call] = create_model(
        name, __base__=base, __module__=module, __doc__=summary(module), **keys
    )
    section.calls = name, module, function, base, default
    return section


def arguments(module: str, function: str) -> dict[str, Any]:
    """The keyword-only arguments of a function, (type, default) by name, as pydantic takes them."""
    found = _functions(module)[function]
    texts = _described(ast.get_docstring(found) or "")
    keys: dict[str, Any] = {}
    for argument, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True):
        assert argument.annotation, f"{module}.{function} has no type for {argument.arg}"
        keys[argument.arg] = (
            _value(argument.annotation),
            Field(... if default is None else _value(default), description=texts.get(argument.arg)),
        )
    return keys


def summary(module: str) -> str:
    """The first paragraph of a module's docstring; the module is not imported."""
    return (ast.get_docstring(_source(module)) or "").split("\n\n")[0]


def folds(method: str) -> bool:
    """Whether what a method trains becomes plain weights: its module has `merge`."""
    return method in defining(METHODS, "merge")


def defining(table: Mapping[str, str], function: str) -> list[str]:
    """The names whose module, which is not imported, has that function."""
    return [name for name, module in table.items() if function in _functions(module)]


def _functions(module: str) -> dict[str, ast.FunctionDef]:
    """Those that stand in a module's source."""
    return {n.name: n for n in _source(module).body if isinstance(n, ast.FunctionDef)}


@functools.cache
def _source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _described(docstring: str) -> dict[str, str]:
    """The entries of `Args:` in a docstring, by argument."""
    block = re.search(r"^Args:\n((?: +.*\n|\n)+)", docstring + "\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", block[1] if block else "", re.MULTILINE)
    return {name: " ".join(f"{text[0].upper()}{text[1:]}".split()) for name, text in entries}


def _blank(*calls: Any) -> Call:
    kind = schema(*calls)
    return kind.__new__(kind)


def _value(expression: ast.expr) -> Any:
    return eval(ast.unparse(expression), globals())


def section(
    table: Mapping[str, str], function: str, base: type[Call] = Call, default: str | None = None
) -> Any:
    """The type of a recipe's field that calls `function` of one of the registered modules; `base`
    and `default` are those of `schema`."""
    members = tuple(schema(name, module, function, base, default) for name, module in table.items())
    if len(members) == 1:
        return members[0]
    one_of: Any = Annotated[Union[members], Field(discriminator="name")]  # noqa: UP007
    if default is None:
        return one_of

    def named(tree: Any) -> Any:
        return {"name": default, **tree} if isinstance(tree, dict) else tree

    return Annotated[one_of, BeforeValidator(named)]
