"""The text of a recipe: settings that fit the number of pictures, comments that say why."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from radapter import precision
from radapter.data import Dataset
from radapter.data.settings import Data, HeldOut

SMALLEST_BATCH = 4
LARGEST_BATCH = {"pictures": 256, "clips": 128}  # R-Adapter's on ImageNet; CLIP4Clip's
MICRO_BATCH = 16  # clips: their frames are about as many as a batch of pictures has
STEPS = 3_000  # R-Adapter's published 16-shot run has 3,100, in 50 epochs
FEW, MANY = 50, {"pictures": 10, "clips": 5}
"""Epochs, published for 16 pictures a class; for ImageNet and COCO, and by CLIP4Clip"""
WARMUP = 500  # published for runs of 10,000 steps and more
COLUMN = 22  # where comments stand
MODEL = "ViT-B-16:openai"


@dataclass
class Part:
    """A split as it will be opened."""

    dataset: Dataset
    data: dict[str, Any]
    """Its data section"""
    sampled: int
    """How many pictures were opened"""
    broken: list[str]
    """A message for each of them that could not be read"""


@dataclass(frozen=True)
class Size:
    """How long training is."""

    pairs: int
    batch: int
    epoch: int
    """Steps an epoch"""
    epochs: int
    items: str
    """What pairs are of: pictures or clips"""

    @property
    def steps(self) -> int:
        return self.epochs * self.epoch


def size_of(pairs: int, items: str = "pictures") -> Size:
    """At least two steps an epoch where there are pairs for it, and about STEPS steps in all."""
    batch = min(LARGEST_BATCH[items], max(SMALLEST_BATCH, 2 ** int(math.log2(max(2, pairs // 2)))))
    epoch = pairs // min(batch, pairs)
    epochs = min(FEW, max(MANY[items], round(STEPS / epoch)))
    return Size(pairs, batch, epoch, epochs, items)


def described(summary: dict[str, Any]) -> str:
    """A line about what was found."""
    line = f"{summary['pictures']:,} {summary['items']} ({summary['kind']}): {_of(summary)}"
    if summary["classes"] is None:
        return line
    found = summary["classes"]
    ends = [f"{end} {found[end][0]} ({found[end][1]:,})" for end in ("smallest", "largest")]
    return f"{line}, {', '.join(ends)}"


def _of(summary: dict[str, Any]) -> str:
    if summary["classes"] is None:
        return f"{summary['captions']:,} captions"
    return f"{summary['classes']['number']:,} classes"


def looked_at(summary: dict[str, Any]) -> str:
    """A line about the pictures that were opened."""
    broken = len(summary["broken"])
    state = f"{broken} {'is' if broken == 1 else 'are'} broken" if broken else "none is broken"
    return f"{summary['sampled']} {summary['items']} were opened, {state}"


def recipe_text(
    name: str,
    path: str,
    settings: Data,
    train: Part,
    validation: Part | None,
    summary: dict[str, Any],
    size: Size,
    scored: str | None,
    taken: dict[str, str],
) -> str:
    """A recipe as YAML, with comments.

    Args:
        path: what the user named.
        validation: the split for a validation section, if there is one.
        summary: see `radapter.init.Start`.
        scored: what is held out, in words; None if nothing is.
        taken: why a setting of the data section is as it is.
    """
    texts = settings.task == "captions"
    items = summary["items"]
    what = f"R-Adapter on {path}: {summary['pictures']:,} {items}, {_of(summary)}"
    warmup = min(WARMUP, size.steps // 20)
    why_warmup = "published for long runs" if warmup == WARMUP else "a twentieth of the steps"
    bf16 = "half the bytes, and tensor cores"
    if precision.cuda_has_bf16():
        precision_line = _line("precision: bf16", f"this GPU has it: {bf16}")
    else:
        precision_line = _line("# precision: bf16", f"on a GPU that has it: {bf16}")
    suites = f"empty: `radapter eval` scores {scored}"
    if not scored:
        suites = "nothing is held out: name a suite for `radapter eval`"
    lines = [
        f"# Made by `radapter init {shlex.quote(path)}`:",
        f"# {described(summary)}.",
        f"# {looked_at(summary)}.",
        *(f"# Note: {note}" for note in summary["notes"]),
        "#",
        f"#     radapter train {name}.yaml --dry-run     # checks all, says what would happen",
        f"#     radapter train {name}.yaml",
        f"#     radapter merge{' --alpha auto' if scored else ''}",
        "#     radapter export",
        *(["#     radapter eval"] if scored else []),
        "#",
        *_whose(items),
        f"name: {name}",
        f"description: {scalar(what)}",
        "",
        "# Any of open_clip's NAME:TAG, fetched once; or a local folder in open_clip's format.",
        f"model: {MODEL}",
        "",
        "method:",
        "  name: r-adapter",
        _line("  rank: full", "or a number, such as 64: fewer trained parameters"),
        "  drop: 0.2",
        "  # The average of the last steps is kept. With `warmup`, a short run forgets its start.",
        "  average: {momentum: 0.999, warmup: true}",
        "",
        *_data(settings, train, summary, taken, anchor="&prompts " if validation else ""),
        *(_validation(settings, validation) if validation else []),
        "",
        "# All pairs of a batch are compared, so a large one helps; halve it if memory runs out.",
        "optimisation:",
        "  lr: 5e-4",
        _line(f"  batch_size: {size.batch}", _why_batch(size)),
        *_micro_batch(size),
        _line(f"  epochs: {size.epochs}", _why_epochs(size)),
        _line(f"  warmup_steps: {warmup}", why_warmup),
        f"objective: {{name: mpm-nce, smoothing: {0 if texts else 0.02}, margin: 0.05}}",
        precision_line,
        _line("workers: auto", f"processes that read {items}, by the processors at hand"),
        "seed: 0",
        _line(
            f"alpha: {0.8 if texts else 0.5}",
            "of `radapter merge` without --alpha; published for "
            + ("retrieval" if texts else "classification"),
        ),
        _line("suites: []", suites),
    ]
    return "\n".join(lines) + "\n"


def _whose(items: str) -> list[str]:
    if items == "pictures":
        return ["# Settings are R-Adapter's (ECCV 2024), scaled to the number of pictures."]
    return [
        "# A clip is the mean of the features of its frames, which does not see their order:",
        "# docs/video.md has methods that do. Settings are R-Adapter's (ECCV 2024) for pictures,",
        "# scaled to the number of clips; frames and the largest batch are CLIP4Clip's.",
    ]


def _micro_batch(size: Size) -> list[str]:
    """Of clips, as each has many frames."""
    if size.items == "pictures" or size.batch <= MICRO_BATCH:
        return []
    return [
        _line(f"  micro_batch: {MICRO_BATCH}", "clips encoded at a time; the result is the same")
    ]


def _why_batch(size: Size) -> str:
    if size.batch == LARGEST_BATCH[size.items]:
        return f"of {size.pairs:,} pairs: {size.epoch:,} steps an epoch"
    return f"no more than half of the {size.pairs:,} pairs"


def _why_epochs(size: Size) -> str:
    why = f"{size.steps:,} steps; "
    if size.epochs == FEW:
        return why + "published for few pictures (16 a class)"
    if size.epochs == MANY[size.items]:
        many = "ImageNet, COCO" if size.items == "pictures" else "CLIP4Clip on MSR-VTT"
        return why + f"published for many ({many})"
    return why + f"about {STEPS:,}, as published for few pictures"


def _data(
    settings: Data, part: Part, summary: dict[str, Any], taken: dict[str, str], anchor: str
) -> list[str]:
    lines, items = ["data:"], summary["items"]
    for key, value in part.data.items():
        if key != "templates":
            comment = taken.get(key) or _comment(key, part, summary)
            lines.append(_line(f"  {key}: {_value(value)}", comment))
    if settings.task == "classification":
        lines += _templates(settings, anchor, items)
    if "broken_images" not in part.data:
        lines.append(_line("  broken_images: 0", "how many that cannot be read are skipped"))
    if isinstance(settings, HeldOut) and not anchor and not settings.hold_out:
        lines.append(_line("  hold_out: 0.0", f"too few {items} to keep any back"))
    return lines


def _validation(settings: Data, part: Part) -> list[str]:
    """The same with the other split; it shares the templates by a YAML anchor."""
    lines = ["", "# Scored by `merge --alpha auto` and `eval`, never trained on.", "validation:"]
    for key, value in part.data.items():
        if key != "templates":
            lines.append(f"  {key}: {_value(value)}")
    if settings.task == "classification":
        lines.append("  templates: *prompts")
    return lines


def _comment(key: str, part: Part, summary: dict[str, Any]) -> str:
    one = summary["items"].removesuffix("s")
    if key == "broken_images":
        first = re.sub(r"^\w+ (cannot be read|is missing): ", "", part.broken[0]).split(": ")[0]
        if len(part.broken) == part.data[key]:
            return f"all that are broken, such as {first}"
        return f"twice what {len(part.broken)} of {part.sampled} suggest, such as {first}"
    if key == "task":
        if part.data[key] == "captions":
            return f"a pair for each caption; those of one {one} are positives"
        return f"a pair for each {one}, with a prompt of its class"
    return {
        "hold_out": f"{summary['held_out']:,} {one}s, for `merge --alpha auto` and `eval`",
        "protocol": "the first five captions of a picture; clip-benchmark: all of them",
        "broken_rows": f"rows without a {one} or a text, skipped",
    }.get(key, "")


def _templates(settings: Data, anchor: str, items: str) -> list[str]:
    templates = settings.prompts()
    if isinstance(templates, str) or len(templates) == 1:
        what = f"what your {items} are; `openai`: 80 prompts"
        return [_line(f"  templates: {anchor}{_value(templates)}", what)]
    prompts = [f"    - {json.dumps(text, ensure_ascii=False)}" for text in templates]
    return [_line(f"  templates: {anchor}".rstrip(), "those that come with the set"), *prompts]


def _line(setting: str, comment: str) -> str:
    return f"{setting:{COLUMN}}  # {comment}" if comment else setting


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in value) + "]"
    return scalar(value)


def scalar(value: str | bool | float | None) -> str:
    """A value as YAML reads it back: plain where that is safe, else in quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        plain = re.fullmatch(r"[\w./~][\w./~ (),+-]*", value) is not None
        if plain and YAML(typ="safe").load(f"k: {value}") == {"k": value}:
            return value
    except Exception:  # ruamel raises errors of many kinds; quotes are always right
        pass
    return json.dumps(value, ensure_ascii=False)
